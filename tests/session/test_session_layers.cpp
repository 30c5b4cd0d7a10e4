#include <gtest/gtest.h>

#include "base/error.h"
#include "models/tiny_model.h"
#include "seedling.h"
#include "session/session.h"

namespace fathom {
namespace {

using test::logits_of;
using test::runtime;
using test::tokens;

std::shared_ptr<const Model> tiny(int layers) {
  test::TinyFile file;  // the weights of a layer do not depend on the number of layers
  file.layers = layers;
  return test::open_tiny(file);
}

TEST(SessionLayers, FirstLayersEqualAModelWithFewerLayers) {
  for (const int layers : {1, 2, 3}) {
    Session first(tiny(3), runtime(), {.layers = layers}), small(tiny(layers), runtime());
    for (Session* session : {&first, &small}) session->append(tokens(300));
    EXPECT_EQ(logits_of(first), logits_of(small)) << layers;
    EXPECT_EQ(first.sequence().kv(0).store().bytes_in_use(), small.sequence().kv(0).store().bytes_in_use());
    Session fork = first.fork();
    fork.rewind(100);
    small.rewind(100);
    const std::vector<int32_t> next = tokens(2, 7);
    for (Session* session : {&fork, &small}) session->append(std::span(next).first(1));
    Session* both[] = {&first, &fork};
    Session::step(both, next);
    small.append(std::span(next).last(1));
    EXPECT_EQ(logits_of(fork), logits_of(small)) << layers;
  }
}

TEST(SessionLayers, SelectorsReferToAllLayersOfTheModel) {
  const auto model = tiny(3);
  // `middle` refers to all three layers of the model: layer 1, although only two layers are run
  Session named(model, runtime(), {.attend = "layers:full=1,else=window", .layers = 2});
  Session middle(model, runtime(), {.attend = "layers:full=middle,else=window", .layers = 2});
  Session beyond(model, runtime(), {.attend = "layers:full=2,else=dense", .layers = 2}),
      dense(model, runtime(), {.layers = 2});
  for (Session* session : {&named, &middle, &beyond, &dense}) session->append(tokens(300));
  EXPECT_EQ(logits_of(named), logits_of(middle));
  EXPECT_EQ(logits_of(beyond), logits_of(dense));
}

TEST(SessionLayers, RejectsInvalidNumbers) {
  for (const int layers : {-1, 4}) {
    try {
      Session session(tiny(3), runtime(), {.layers = layers});
      FAIL() << layers;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kUsage);
      EXPECT_NE(std::string(error.what()).find("1 to 3 of the model's layers"), std::string::npos) << error.what();
    }
  }
  const auto model = tiny(3);
  Session two(model, runtime(), {.layers = 2}), three(model, runtime());
  Session* both[] = {&two, &three};
  EXPECT_THROW(Session::step(both, tokens(2)), Error);
  EXPECT_EQ(two.length(), 0);
}

}  // namespace
}  // namespace fathom
