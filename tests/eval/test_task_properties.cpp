// Properties of every task that generates its text.
#include "task_bench.h"

namespace fathom::eval {
namespace {

struct TaskCase {
  std::string spec;
  bool fills = true;  // uses 95 % of any length
};

class TaskLaws : public testing::TestWithParam<TaskCase> {
 protected:
  std::shared_ptr<const Task> task_ = task_of(GetParam().spec);
  /// Returns the length that the task needs times a factor.
  int64_t length(const TaskInput& input, double factor) const {
    return static_cast<int64_t>(factor * static_cast<double>(needed_by(*task_, input)));
  }
};

TEST_P(TaskLaws, SameSeedGivesTheSameBytesAndAnotherSeedOrIndexOthers) {
  const int64_t length = this->length(bytes_input(), 2);
  const std::string sample = everything(task_->make(bytes_input(1), length, 0));
  EXPECT_EQ(sample, everything(task_->make(bytes_input(1), length, 0)));
  EXPECT_NE(sample, everything(task_->make(bytes_input(2), length, 0)));
  EXPECT_NE(sample, everything(task_->make(bytes_input(1), length, 1)));
}

void expect_budget(const Task& task, const TaskInput& input, int64_t length, bool fills) {
  const Sample sample = task.make(input, length, 3);
  EXPECT_LE(tokens_of(input, sample), length) << task.name();
  if (fills) {
    EXPECT_GE(tokens_of(input, sample), length * 95 / 100) << task.name() << " of " << length;
  }
}

TEST_P(TaskLaws, PromptAndReserveFillTheLengthButNoMore) {
  for (const double factor : {1.5, 3.7, 12.0}) {
    expect_budget(*task_, bytes_input(), std::max<int64_t>(1500, length(bytes_input(), factor)), GetParam().fills);
  }
}

TEST_P(TaskLaws, BudgetHoldsWithARealTokenizer) {
  expect_budget(*task_, seedling_input(), std::max<int64_t>(2000, length(seedling_input(), 2)), GetParam().fills);
}

TEST_P(TaskLaws, ReferenceScoresOneAndNoAnswerScoresZero) {
  for (int64_t index = 0; index < 5; ++index) {
    const Sample sample = task_->make(bytes_input(), length(bytes_input(), 2), index);
    EXPECT_EQ(task_->score(sample, correct_answer(sample)).value, 1) << sample.prompt();
    EXPECT_EQ(task_->score(sample, no_answer(sample)).value, 0) << sample.prompt();
  }
}

TEST_P(TaskLaws, ReserveFitsTheReference) {
  const Sample sample = task_->make(seedling_input(), length(seedling_input(), 2), 0);
  if (sample.mode == Sample::Mode::kForced) {
    EXPECT_EQ(sample.reserve, 0);
  } else {
    EXPECT_GT(sample.reserve, seedling_input().count(" " + sample.references.at(0)));
    EXPECT_FALSE(sample.stop.empty());
  }
}

TEST_P(TaskLaws, SpansAreOrderedAndDisjointAndTheLeadEndsWithoutSpace) {
  const Sample sample = task_->make(bytes_input(), length(bytes_input(), 3), 0);
  EXPECT_FALSE(sample.evidence.empty());
  EXPECT_EQ(sample.scored.empty(), sample.mode == Sample::Mode::kGenerate);
  for (const auto* spans : {&sample.scored, &sample.evidence}) {
    size_t end = 0;
    for (const TextSpan span : *spans) {
      EXPECT_LE(end, span.begin);
      EXPECT_LT(span.begin, span.end);
      end = span.end;
    }
    EXPECT_LE(end, sample.prompt().size());
  }
  if (sample.mode == Sample::Mode::kGenerate) {
    EXPECT_FALSE(std::isspace(sample.lead.back()));
  }
}

TEST_P(TaskLaws, TooShortALengthIsAnErrorWithTheNeededLength) {
  const int64_t needed = needed_by(*task_, bytes_input());
  ASSERT_GT(needed, 10);
  EXPECT_THROW(task_->make(bytes_input(), needed * 9 / 10, 0), Error);
  EXPECT_NO_THROW(task_->make(bytes_input(), needed * 11 / 10,
                              0));  // another length gives another sample, which may need a little more
}

std::string case_name(const testing::TestParamInfo<TaskCase>& info) {
  std::string name = info.param.spec;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    All, TaskLaws,
    testing::Values(
        TaskCase{"kv_threads:kind=single"}, TaskCase{"kv_threads:kind=multiple,needles=3"},
        TaskCase{"kv_threads:kind=conditional"}, TaskCase{"kv_threads:kind=thread,hops=3,direction=backward"},
        TaskCase{"kv_threads:kind=multi_thread,hops=2,threads=2,direction=random"},
        TaskCase{"kv_threads:kind=branched,hops=3,branches=3"}, TaskCase{"classify:classes=8"},
        TaskCase{"classify:classes=5,labels=true,order=grouped"}, TaskCase{"text_sort"}, TaskCase{"best_answer"},
        TaskCase{"word_recall"}, TaskCase{"word_recall:condition=permute,words=7"},
        TaskCase{"word_recall:condition=control,words=3"}, TaskCase{"word_recall:mode=generate"}, TaskCase{"mqar"},
        TaskCase{"mqar:pairs=8"}, TaskCase{"regular_language"}, TaskCase{"reorder"}, TaskCase{"topic_of"},
        TaskCase{"same_topic"}, TaskCase{"count_topic"}, TaskCase{"path_traversal:tier=256", false},
        TaskCase{"countdown:tier=1k", false}, TaskCase{"tom_tracking:tier=512", false}),
    case_name);

}  // namespace
}  // namespace fathom::eval
