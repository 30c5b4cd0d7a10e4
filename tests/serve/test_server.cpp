// The HTTP server, with a client over a socket: endpoints, streams, errors, keys and contexts.
#include "serve/server.h"

#include <gtest/gtest.h>
#include <httplib.h>

#include <fstream>
#include <random>
#include <thread>

#include "base/format.h"
#include "running_server.h"
#include "seed.h"
#include "serve/api_error.h"
#include "temporary_folder.h"

namespace fathom::serve {
namespace {

class ServerTest : public testing::Test {
 protected:
  const test::TemporaryFolder folder_;
};

TEST_F(ServerTest, CompletesTextsLikeOpenai) {
  RunningServer server(folder_.path());
  const Json plain =
      server.post("/v1/completions", {{"prompt", "The old sailor"}, {"max_tokens", 8}, {"temperature", 0}});
  EXPECT_EQ(plain["object"].text(), "text_completion");
  EXPECT_EQ(plain["choices"][0]["finish_reason"].text(), "length");
  EXPECT_EQ(plain["usage"]["completion_tokens"].get<int>(), 8);
  const std::string text = plain["choices"][0]["text"].text();
  ASSERT_FALSE(text.empty());

  const Json again = server.post("/v1/completions", {{"prompt", "The old sailor"},
                                                     {"max_tokens", 8},
                                                     {"temperature", 0},
                                                     {"stop", Json::array({text.substr(text.size() / 2)})}});
  EXPECT_EQ(again["choices"][0]["text"].text(), text.substr(0, text.size() / 2));
  EXPECT_EQ(again["choices"][0]["finish_reason"].text(), "stop");

  const Json tokens = server.post("/tokenize", {{"content", "The old sailor"}, {"add_special", true}})["tokens"];
  EXPECT_EQ(server
                .post("/v1/completions",
                      {{"prompt", tokens}, {"max_tokens", 8}, {"temperature", 0}})["choices"][0]["text"]
                .text(),
            text);

  const httplib::Result stream = server.client().Post(
      "/v1/completions",
      Json{{"prompt", "The old sailor"}, {"max_tokens", 8}, {"temperature", 0}, {"stream", true}}.dump(),
      "application/json");
  ASSERT_TRUE(stream);
  EXPECT_EQ(stream->get_header_value("Content-Type"), "text/event-stream");
  std::string streamed;
  const std::vector<std::string> events = events_of(stream->body);
  EXPECT_EQ(events.back(), "[DONE]");
  for (size_t i = 0; i + 2 < events.size(); ++i) streamed += Json::parse(events[i])["choices"][0]["text"].text();
  EXPECT_EQ(streamed, text);
}

TEST_F(ServerTest, SameSeedSameText) {
  RunningServer server(folder_.path());
  const auto sampled = [&](int seed, int n) {
    return server.post("/v1/chat/completions", {{"messages", messages("Once upon a time")},
                                                {"max_completion_tokens", 12},
                                                {"temperature", 1.2},
                                                {"seed", seed},
                                                {"n", n}})["choices"];
  };
  const Json two = sampled(7, 2);
  EXPECT_EQ(two.size(), 2u);
  EXPECT_NE(two[0]["message"]["content"].text(), two[1]["message"]["content"].text());
  EXPECT_EQ(sampled(7, 1)[0]["message"]["content"].text(), two[0]["message"]["content"].text());
  EXPECT_EQ(sampled(8, 1)[0]["message"]["content"].text(), two[1]["message"]["content"].text());
}

TEST_F(ServerTest, AnswersMessagesLikeAnthropic) {
  RunningServer server(folder_.path(), {}, kTemplate);
  const Json body{{"model", "any"},
                  {"max_tokens", 6},
                  {"temperature", 0},
                  {"system", "Be brief."},
                  {"messages", messages("Once upon a time")}};
  const Json answer = server.post("/v1/messages", body);
  EXPECT_EQ(answer["type"].text(), "message");
  EXPECT_EQ(answer["stop_reason"].text(), "max_tokens");
  EXPECT_EQ(answer["usage"]["output_tokens"].get<int>(), 6);
  EXPECT_EQ(server.post("/v1/messages/count_tokens", body)["input_tokens"].get<int>(),
            answer["usage"]["input_tokens"].get<int>());
  const std::string prompt =
      server
          .post("/apply-template",
                {{"messages", Json::array({Json{{"role", "system"}, {"content", "Be brief."}},
                                           Json{{"role", "user"}, {"content", "Once upon a time"}}})}})["prompt"]
          .text();
  EXPECT_EQ(prompt, "<system>Be brief.</system><user>Once upon a time</user><assistant>");

  Json streamed_body = body;
  streamed_body["stream"] = true;
  const httplib::Result stream = server.client().Post("/v1/messages", streamed_body.dump(), "application/json");
  ASSERT_TRUE(stream);
  std::string text;
  std::vector<std::string> types;
  for (const std::string& event : events_of(stream->body)) {
    const Json json = Json::parse(event);
    if (json["type"].text() == "content_block_delta") text += json["delta"]["text"].text();
    if (types.empty() || types.back() != json["type"].text()) types.push_back(json["type"].text());
  }
  EXPECT_EQ(text, answer["content"][0]["text"].text());
  EXPECT_EQ(types, (std::vector<std::string>{"message_start", "content_block_start", "content_block_delta",
                                             "content_block_stop", "message_delta", "message_stop"}));
}

TEST_F(ServerTest, KeepsContexts) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += concat("Line ", i, " of a short tale about a lamp.\n");
  std::string answer;
  const Json question{
      {"context", "tale"}, {"messages", messages("The lamp")}, {"max_tokens", 8}, {"temperature", 0}};
  {
    RunningServer server(folder_.path());
    const httplib::Result put =
        server.client().Put("/v1/contexts/tale", {{"Accept", "text/event-stream"}}, text, "text/plain");
    ASSERT_TRUE(put);
    const std::vector<std::string> events = events_of(put->body);
    ASSERT_GE(events.size(), 3u);
    EXPECT_GT(Json::parse(events[1])["processed"].get<int>(), 0);
    EXPECT_EQ(Json::parse(events.back())["bytes"].get<size_t>(), text.size());
    EXPECT_EQ(server.client().Get("/v1/contexts/tale/text")->body, text);
    const Json asked = server.post("/v1/chat/completions", question);
    answer = asked["choices"][0]["message"]["content"].text();
    EXPECT_GT(asked["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>(), 300);
    const Json whole =
        server.post("/v1/completions", {{"prompt", text + "The lamp"}, {"max_tokens", 8}, {"temperature", 0}});
    EXPECT_EQ(whole["choices"][0]["text"].text(), " " + answer) << "the same as without a context";
  }
  RunningServer server(folder_.path());  // after a restart
  Json watched = question;
  watched["stream"] = true;
  watched["fathom"] = {{"attention", true}};
  const httplib::Result places = server.client().Post("/v1/chat/completions", watched.dump(), "application/json");
  const std::vector<std::string> watched_events = events_of(places->body);
  const Json attention = Json::parse(watched_events.at(watched_events.size() - 2))["fathom"]["attention"];
  EXPECT_EQ(attention["strip"].size(), 256u);
  double sum = 0;
  for (const Json& share : attention["strip"].items()) sum += share.get<double>();
  EXPECT_NEAR(sum, 1, 1e-6);
  ASSERT_GT(attention["passages"].size(), 0u);
  EXPECT_TRUE(text.substr(attention["passages"][0]["begin"].get<size_t>()).starts_with("Line "));
  EXPECT_EQ(Json::parse(server.client().Get("/v1/contexts")->body)["data"].size(), 1u);
  EXPECT_EQ(server.post("/v1/chat/completions", question)["choices"][0]["message"]["content"].text(), answer);

  const size_t at = text.find("lamp");
  const Json edited =
      server.post("/v1/contexts/tale/edits",
                  {{"edits", Json::array({Json{{"begin", at}, {"end", at + 4}, {"text", "boat"}}})}});
  EXPECT_LT(edited["read"].get<int>(), 80);
  EXPECT_GT(edited["moved"].get<int>(), 200);
  EXPECT_EQ(server.client().Get("/v1/contexts/tale/text")->body, text.substr(0, at) + "boat" + text.substr(at + 4));
  const Json exact = server.post("/v1/contexts/tale/edits", {{"text", text}, {"exact", true}});
  EXPECT_EQ(exact["moved"].get<int>(), 0);
  EXPECT_EQ(exact["read"].get<int>() + exact["kept"].get<int>(), exact["tokens"].get<int>());
  EXPECT_EQ(server.post("/v1/chat/completions", question)["choices"][0]["message"]["content"].text(), answer)
      << "the text is as before, and so are its bits";
  int status = 0;
  server.post("/v1/contexts/tale/edits", {{"edits", Json::array({Json{{"begin", 9}, {"end", 4}, {"text", ""}}})}},
              &status);
  EXPECT_EQ(status, 400);
  EXPECT_EQ(server.client().Delete("/v1/contexts/tale")->status, 200);
  EXPECT_EQ(server.client().Delete("/v1/contexts/tale")->status, 404);
  server.post("/v1/chat/completions", question, &status);
  EXPECT_EQ(status, 404);
}

TEST_F(ServerTest, ErrorsSayWhatIsWrong) {
  RunningServer server(folder_.path(), {.max_body = 100'000});
  const auto error_of = [&](const std::string& path, const Json& body, int expected) {
    int status = 0;
    const Json answer = server.post(path, body, &status);
    EXPECT_EQ(status, expected) << path << " " << body.dump();
    return answer["error"]["message"].text();
  };
  const std::string chat = "/v1/chat/completions";
  EXPECT_EQ(error_of(chat, Json::object(), 400), "messages: expected a list of at least one message");
  EXPECT_EQ(error_of(chat, {{"messages", messages("x")}, {"temperature", 1000}}, 400),
            "temperature: expected a number from 0 to 100, found 1000");
  EXPECT_EQ(error_of(chat, {{"messages", messages("x")}, {"max_tokens", "many"}}, 400),
            "max_tokens: expected a number, found '\"many\"'");
  EXPECT_NE(error_of(chat, {{"messages", messages("x")}, {"tools", Json::array({1})}}, 400).find("tools"),
            std::string::npos);
  EXPECT_NE(
      error_of(chat, {{"messages", messages("x")}, {"fathom", {{"attend", "nothing"}}}}, 400).find("'nothing'"),
      std::string::npos);
  EXPECT_NE(error_of(chat, {{"messages", messages("x")}, {"context", "../up"}}, 400).find("context name"),
            std::string::npos);
  std::string large;
  for (int i = 0; i < 1100; ++i) large += " lamp";
  EXPECT_NE(
      error_of(chat, {{"messages", messages(large)}}, 400).find("more than fit: this server accepts 1024 tokens"),
      std::string::npos);
  EXPECT_EQ(error_of("/v1/nothing", Json::object(), 404), "there is no such endpoint");
  EXPECT_EQ(error_of(chat, {{"messages", messages(std::string(200'000, 'x'))}}, 413),
            "the request is larger than this server accepts");
  int status = 0;
  EXPECT_EQ(server.post("/v1/messages", {{"messages", messages("x")}}, &status)["error"]["type"].text(),
            "invalid_request_error");
  EXPECT_EQ(status, 400);
}

TEST_F(ServerTest, InternalErrorsNameNoFiles) {
  {
    RunningServer server(folder_.path());
    EXPECT_EQ(server.client().Put("/v1/contexts/tale", std::string(600, 'a'), "text/plain")->status, 200);
  }
  {
    std::fstream file(folder_.file("contexts/local/tale.ctx"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(0, std::ios::end);
    file.seekp(static_cast<int64_t>(file.tellg()) * 9 / 10);  // in a page of keys and values
    file << "damage";
    ASSERT_TRUE(file.good());
  }
  RunningServer server(folder_.path());
  int status = 0;
  const std::string answer =
      server.post("/v1/chat/completions", {{"context", "tale"}, {"messages", messages("The lamp")}}, &status)
          .dump();
  EXPECT_EQ(status, 500);
  EXPECT_NE(answer.find("the log of the server says why"), std::string::npos) << answer;
  EXPECT_EQ(answer.find(folder_.path()), std::string::npos) << answer;
}

TEST_F(ServerTest, KeysSeparateClients) {
  RunningServer server(folder_.path(), {.keys = {"first", "second"}});
  int status = 0;
  server.post("/v1/completions", {{"prompt", "x"}}, &status);
  EXPECT_EQ(status, 401);
  server.post("/v1/completions", {{"prompt", "x"}}, &status, {{"Authorization", "Bearer firs"}});
  EXPECT_EQ(status, 401);
  const httplib::Headers first{{"Authorization", "Bearer first"}}, second{{"x-api-key", "second"}};
  EXPECT_EQ(server.client().Put("/v1/contexts/mine", first, "A lamp.", "text/plain")->status, 200);
  EXPECT_EQ(server.client().Get("/v1/contexts/mine", first)->status, 200);
  EXPECT_EQ(server.client().Get("/v1/contexts/mine", second)->status, 404);
  EXPECT_EQ(Json::parse(server.client().Get("/v1/contexts", second)->body)["data"].size(), 0u);
  EXPECT_EQ(server.client().Get("/health")->status, 200);
}

TEST_F(ServerTest, ServesThePageWithoutAKey) {
  RunningServer server(folder_.path(), {.keys = {"first"}});
  const httplib::Result page = server.client().Get("/");
  ASSERT_EQ(page->status, 200);
  EXPECT_NE(page->body.find("app.js"), std::string::npos);
  EXPECT_NE(page->get_header_value("Content-Security-Policy").find("default-src 'none'"), std::string::npos);
  EXPECT_EQ(server.client().Get("/app.js")->get_header_value("Content-Type"), "text/javascript; charset=utf-8");
  EXPECT_EQ(server.client().Get("/../server.cpp")->status, 401);
}

TEST_F(ServerTest, RefusesPagesOfOtherOrigins) {
  RunningServer closed(folder_.path());
  EXPECT_EQ(closed.client().Get("/v1/models", {{"Origin", "https://example.org"}})->status, 403);
  RunningServer open(folder_.path(), {.origin = "https://example.org"});
  const httplib::Result allowed = open.client().Get("/v1/models", {{"Origin", "https://example.org"}});
  EXPECT_EQ(allowed->status, 200);
  EXPECT_EQ(allowed->get_header_value("Access-Control-Allow-Origin"), "https://example.org");
  EXPECT_EQ(open.client().Get("/v1/models", {{"Origin", "https://other.org"}})->status, 403);
}

TEST_F(ServerTest, EndsTheTextOfAClientThatLeaves) {
  RunningServer server(folder_.path());
  {
    httplib::Request request;
    request.method = "POST";
    request.path = "/v1/completions";
    request.set_header("Content-Type", "application/json");
    request.body = Json{{"prompt", "Once"}, {"max_tokens", 900}, {"stream", true}}.dump();
    request.content_receiver = [](const char*, size_t, uint64_t, uint64_t) { return false; };
    server.client().send(request);
  }
  for (int i = 0; i < 6000 && server.service().scheduler().stats().running > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(server.service().scheduler().stats().running, 0);
}

TEST_F(ServerTest, SurvivesDamagedRequests) {
  RunningServer server(folder_.path(), {}, nullptr, 32);
  const std::string valid = Json{{"messages", messages("Once")},
                                 {"max_tokens", 1},
                                 {"temperature", 0.5},
                                 {"top_p", 0.9},
                                 {"stop", "x"},
                                 {"stream", false},
                                 {"n", 1},
                                 {"context", nullptr},
                                 {"fathom", {{"attend", "dense"}, {"draft", "none"}}}}
                                .dump();
  std::mt19937 random(test::seed(0));
  httplib::Client client = server.client();
  client.set_keep_alive(true);
  for (int i = 0; i < 400; ++i) {
    std::string body = valid;
    for (int change = 0; change < 1 + i % 4; ++change) {
      const size_t at = random() % body.size();
      if (random() % 3 == 0)
        body.erase(at, 1 + random() % 8);
      else if (random() % 2 == 0)
        body[at] = static_cast<char>(random());
      else
        body.insert(at, valid.substr(random() % valid.size(), random() % 10));
      if (body.empty()) body = "{";
    }
    const char* paths[] = {"/v1/chat/completions", "/v1/messages", "/v1/completions", "/tokenize",
                           "/v1/contexts/a/edits"};
    const httplib::Result result = client.Post(paths[random() % 5], body, "application/json");
    ASSERT_TRUE(result) << body;
    EXPECT_TRUE(result->status == 200 || (result->status >= 400 && result->status < 500))
        << result->status << " " << body << " " << result->body;
    EXPECT_EQ(result->body.find(folder_.path()), std::string::npos) << "a path of the machine";
  }
  EXPECT_EQ(client.Get("/health")->status, 200);
}

}  // namespace
}  // namespace fathom::serve
