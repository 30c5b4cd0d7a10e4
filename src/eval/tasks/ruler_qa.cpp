// RULER's question answering (RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024): one
// or two of many documents contain the answer. Documents are generated facts about invented people, or the
// paragraphs of SQuAD 2.0 or HotpotQA from their files.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "eval/metrics.h"
#include "eval/tasks/hiding.h"
#include "eval/tasks/tasks.h"
#include "eval/words.h"

namespace fathom::eval {
namespace {

constexpr int64_t kAnswerReserve = 32;

/// A question, its gold documents, and other documents in the order in which they are used.
struct QaItem {
  std::string question;
  std::vector<std::string> answers;
  std::vector<std::string> gold;       // documents that contain the answer
  std::vector<std::string> documents;  // other documents, related ones first
};

/// A source of questions.
class QuestionSource {
 public:
  virtual ~QuestionSource() = default;
  virtual int64_t available() const { return -1; }
  virtual const std::string& source() const = 0;  // for error messages
  /// Returns item `index` with up to `documents` documents in addition to the gold ones.
  virtual QaItem item(Rng& rng, int64_t index, int64_t documents) const = 0;
};

// --- generated facts about invented people

struct Person {
  std::string name, town, trade, instrument, animal, teacher;
  int64_t year = 0;
};

constexpr std::string_view kTrades[] = {"baker",    "bookbinder", "carpenter", "clockmaker", "cooper",    "dyer",
                                        "ferryman", "fisher",     "gardener",  "glazier",    "goldsmith", "hatter",
                                        "joiner",   "mason",      "miller",    "painter",    "potter",    "printer",
                                        "roofer",   "saddler",    "shepherd",  "tailor",     "tanner",    "weaver"};
constexpr std::string_view kInstruments[] = {"flute", "harp",  "violin",  "cello", "trumpet", "organ",
                                             "lute",  "piano", "bassoon", "drum",  "horn",    "zither"};
constexpr std::string_view kAnimals[] = {"parrot", "donkey", "tortoise", "falcon", "goat",    "hedgehog",
                                         "raven",  "monkey", "rabbit",   "badger", "peacock", "squirrel"};

class People {
 public:
  explicit People(Rng& rng) : rng_(rng) {}

  /// Returns a random name that was not returned before.
  std::string name() {
    for (;;) {
      std::string surname(rng_.pick(nouns()));
      surname[0] = static_cast<char>(surname[0] - 'a' + 'A');
      std::string name = concat(rng_.pick(first_names()), " ", surname);
      if (names_.insert(name).second) return name;
    }
  }
  Person person() {
    Person p{name(), {}, {}, {}, {}, name()};
    p.town = rng_.pick(towns()), p.trade = rng_.pick(kTrades);
    p.instrument = rng_.pick(kInstruments), p.animal = rng_.pick(kAnimals);
    p.year = rng_.between(1701, 1899);
    return p;
  }

  static std::string document(const Person& p) {
    const char* article = std::string_view("aeiou").find(p.trade[0]) != std::string_view::npos ? "an " : "a ";
    return concat(p.name, " was born in ", p.town, " in the year ", p.year, " and worked as ", article, p.trade,
                  " for most of a long life. The trade was learned from ", p.teacher, ". In the evenings ", p.name,
                  " played the ", p.instrument, ", and the neighbours remembered above all the tame ", p.animal,
                  " that lived in the house.");
  }

 private:
  Rng& rng_;
  std::set<std::string> names_;
};

/// A question about a person: its two parts and the field that answers it.
struct PersonQuestion {
  const char *before, *after;
  std::string Person::*answer;
};
constexpr PersonQuestion kPersonQuestions[] = {
    {"In which town was ", " born?", &Person::town},
    {"Which instrument did ", " play?", &Person::instrument},
    {"Which trade did ", " work in?", &Person::trade},
    {"Which tame animal lived in the house of ", "?", &Person::animal},
};

/// Questions about a person (hops 1) or about the person from whom another one learned (hops 2).
class GeneratedQuestions final : public QuestionSource {
 public:
  explicit GeneratedQuestions(int hops) : hops_(hops) {}
  const std::string& source() const override { return source_; }

  QaItem item(Rng& rng, int64_t, int64_t documents) const override {
    People people(rng);
    Person subject = people.person(), pupil = people.person();
    pupil.teacher = subject.name;
    const PersonQuestion& question = rng.pick(kPersonQuestions);
    const std::string& answer = subject.*question.answer;
    while (pupil.*question.answer == answer) pupil.*question.answer = people.person().*question.answer;
    QaItem item;
    item.question = question.before +
                    (hops_ == 1 ? subject.name : "the person from whom " + pupil.name + " learned") +
                    question.after;
    item.answers = {answer};
    if (hops_ == 2) item.gold.push_back(People::document(pupil));
    item.gold.push_back(People::document(subject));
    while (static_cast<int64_t>(item.documents.size()) < documents) {
      Person other = people.person();
      if (item.documents.size() < kRelated && question.answer != &Person::town) other.town = subject.town;
      if (other.*question.answer != answer) item.documents.push_back(People::document(other));
    }
    return item;
  }

 private:
  static constexpr size_t kRelated = 8;  // documents about people of the same town
  int hops_;
  std::string source_ = "generated documents about invented people";
};

// --- files

Json parse_file(const std::string& path, const char* published) {
  const FileMap file(path);
  Json json = Json::parse_or_null(file.text());
  if (json.is_null()) fail(path, ": invalid JSON; expected ", published);
  return json;
}

/// Questions of a file. An item has its own documents first and takes those of other items to fill the length.
class FileQuestions : public QuestionSource {
 public:
  explicit FileQuestions(std::string path) : path_(std::move(path)) {}
  const std::string& source() const override { return path_; }
  int64_t available() const override { return static_cast<int64_t>(records_.size()); }

  QaItem item(Rng& rng, int64_t index, int64_t documents) const override {
    const QuestionRecord& record = records_[index];
    QaItem item{record.question, record.answers, {}, {}};
    std::set<int64_t> used;
    const auto take = [&](int64_t id, std::vector<std::string>& into) {
      if (used.insert(id).second) into.push_back(documents_[id]);
    };
    for (const int64_t id : record.gold) take(id, item.gold);
    for (const int64_t id : record.related)
      if (static_cast<int64_t>(item.documents.size()) < documents) take(id, item.documents);
    const auto count = static_cast<int64_t>(documents_.size());
    for (const int64_t id : rng.distinct(count, count))
      if (static_cast<int64_t>(item.documents.size()) < documents) take(id, item.documents);
    return item;
  }

 protected:
  struct QuestionRecord {
    std::string question;
    std::vector<std::string> answers;
    std::vector<int64_t> gold, related;
  };
  int64_t add_document(const std::string& text) {
    const auto [found, added] = ids_.try_emplace(text, static_cast<int64_t>(documents_.size()));
    if (added) documents_.push_back(text);
    return found->second;
  }
  std::vector<QuestionRecord> records_;
  std::vector<std::string> documents_;

 private:
  std::string path_;
  std::map<std::string, int64_t> ids_;
};

class SquadQuestions final : public FileQuestions {
 public:
  explicit SquadQuestions(const std::string& path) : FileQuestions(path) {
    try {
      const Json json = parse_file(path, "SQuAD 2.0, dev-v2.0.json");
      for (const auto& article : json.at("data").items()) add_article(article.at("paragraphs"));
    } catch (const JsonError& error) {
      fail(path, ": not in the format of SQuAD 2.0 (data[].paragraphs[].{context,qas}): ", error.what());
    }
    if (records_.empty()) fail(path, ": contains no question with an answer");
  }

 private:
  void add_article(const Json& paragraphs) {
    std::vector<int64_t> ids;
    for (const auto& paragraph : paragraphs.items())
      ids.push_back(add_document(paragraph.at("context").get<std::string>()));
    for (size_t p = 0; p < ids.size(); ++p) {
      for (const auto& qa : paragraphs[p].at("qas").items()) {
        if (qa.value("is_impossible", false)) continue;
        QuestionRecord record{qa.at("question").get<std::string>(), {}, {ids[p]}, ids};
        for (const auto& answer : qa.at("answers").items())
          record.answers.push_back(answer.at("text").get<std::string>());
        if (!record.answers.empty()) records_.push_back(std::move(record));
      }
    }
  }
};

class HotpotQuestions final : public FileQuestions {
 public:
  explicit HotpotQuestions(const std::string& path) : FileQuestions(path) {
    try {
      for (const auto& item : parse_file(path, "HotpotQA, hotpot_dev_distractor_v1.json").items()) add_item(item);
    } catch (const JsonError& error) {
      fail(path, ": not in the format of HotpotQA ([{question, answer, context: [[title, [sentences]]]}]): ",
           error.what());
    }
    if (records_.empty()) fail(path, ": contains no question");
  }

 private:
  void add_item(const Json& item) {
    QuestionRecord record{item.at("question").get<std::string>(), {item.at("answer").get<std::string>()}, {}, {}};
    for (const auto& document : item.at("context").items()) {
      std::string text = document.at(0).get<std::string>() + "\n";
      for (const auto& sentence : document.at(1).items()) text += sentence.get<std::string>();
      record.gold.push_back(add_document(text));  // all ten are the question's own documents
    }
    records_.push_back(std::move(record));
  }
};

// --- the task

class RulerQa final : public Task {
 public:
  RulerQa(std::string name, std::unique_ptr<const QuestionSource> questions)
      : Task(std::move(name)), questions_(std::move(questions)) {}

  int64_t available() const override { return questions_->available(); }

  Sample make(const TaskInput& input, int64_t length, int64_t index) const override {
    Rng rng = this->rng(input, length, index);
    const QaItem item = questions_->item(rng, index, length / 12);  // a document has far more than 12 tokens
    const Rng order = rng;
    const auto max_documents = static_cast<int64_t>(item.documents.size());
    const auto make = [&](int64_t documents) { return build(item, documents, order); };
    return fit_sample(*this, input, length, 0, max_documents, make, TextSource{questions_->source(), ""});
  }

  Score score(const Sample& sample, const Answer& answer) const override {
    return {find_metric("substr_any").score(answer.text, sample),
            {{"f1", find_metric("qa_f1").score(answer.text, sample)}}};
  }

 private:
  static Sample build(const QaItem& item, int64_t documents, Rng rng) {
    std::vector<const std::string*> order;
    for (const std::string& text : item.gold) order.push_back(&text);
    for (int64_t i = 0; i < documents; ++i) order.push_back(&item.documents[i]);
    rng.shuffle(order);
    Sample sample;
    sample.context = "Answer the question from the documents below. Give only the answer.\n";
    for (size_t i = 0; i < order.size(); ++i)
      sample.context += concat("\nDocument ", i + 1, ":\n", *order[i], "\n");
    for (const std::string& text : item.gold) add_evidence(sample, text);
    std::ranges::sort(sample.evidence, {}, &TextSpan::begin);
    sample.question =
        "\nAnswer the question from the documents above. Give only the answer.\n\nQuestion: " + item.question +
        "\n";
    sample.lead = "Answer:";
    sample.references = item.answers;
    sample.reserve = kAnswerReserve;
    sample.stop = {"\n"};
    return sample;
  }

  std::unique_ptr<const QuestionSource> questions_;
};

MethodInfo qa_info(const char* name, const char* summary, const char* file) {
  return {"",
          name,
          summary,
          "RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024",
          false,
          "any model",
          "",
          "",
          {{"file", Parameter::Type::kString, "", file, {}, {}, {}}}};
}

std::string file_of(const Values& values) { return values.has("file") ? values.string("file") : ""; }

}  // namespace

MethodInfo ruler_qa_1_info() {
  return qa_info("qa_1", "answer a question from one of many documents",
                 "dev-v2.0.json of SQuAD 2.0; default: generated facts about invented people");
}
TaskList make_ruler_qa_1(const Values& values) {
  const std::string file = file_of(values);
  if (file.empty()) return {std::make_shared<RulerQa>("qa_1", std::make_unique<GeneratedQuestions>(1))};
  return {std::make_shared<RulerQa>("qa_1", std::make_unique<SquadQuestions>(file))};
}

MethodInfo ruler_qa_2_info() {
  return qa_info("qa_2", "answer a question that needs two of many documents",
                 "hotpot_dev_distractor_v1.json of HotpotQA; default: generated facts about invented people");
}
TaskList make_ruler_qa_2(const Values& values) {
  const std::string file = file_of(values);
  if (file.empty()) return {std::make_shared<RulerQa>("qa_2", std::make_unique<GeneratedQuestions>(2))};
  return {std::make_shared<RulerQa>("qa_2", std::make_unique<HotpotQuestions>(file))};
}

}  // namespace fathom::eval
