// Fields of the APIs beyond plain texts: probabilities, biases, tools, responses, embeddings and ranking.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "base/format.h"
#include "running_server.h"
#include "temporary_folder.h"
#include "tokens/prompt.h"

namespace fathom::serve {
namespace {

/// A template that knows tools and reasoning.
constexpr const char* kToolTemplate =
    "{% if tools %}<sys>{{ tools | tojson }}</sys>{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content "
    "}}{% "
    "if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>\n{\"name\": \"{{ c.function.name }}\", "
    "\"arguments\": "
    "{{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}{% endif %}</{{ m.role }}>{% endfor %}{% if "
    "add_generation_prompt %}<assistant>{% if enable_thinking is defined and not enable_thinking "
    "%}<think></think>{% endif %}{% endif %}";

Json weather_tool() {
  return {{"type", "function"},
          {"function",
           {{"name", "weather"},
            {"description", "Tells the weather"},
            {"parameters", {{"type", "object"}, {"properties", {{"city", {{"type", "string"}}}}}}}}}};
}

class ServerApi : public testing::Test {
 protected:
  const test::TemporaryFolder folder_;
};

/// Returns the data of the events of a streamed response.
std::vector<Json> streamed(const RunningServer& server, const std::string& path, Json body) {
  body["stream"] = true;
  const httplib::Result result = server.client().Post(path, body.dump(), "application/json");
  std::vector<Json> events;
  EXPECT_TRUE(result);
  if (!result) return events;
  for (const std::string& event : events_of(result->body))
    if (event != "[DONE]") events.push_back(Json::parse(event));
  return events;
}

TEST_F(ServerApi, ReportsLogprobs) {
  RunningServer server(folder_.path());
  const Json body{{"messages", messages("Once upon a")},
                  {"max_tokens", 6},
                  {"temperature", 0},
                  {"logprobs", true},
                  {"top_logprobs", 2}};
  const Json choice = server.post("/v1/chat/completions", body)["choices"][0];
  const Json content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), 6);
  std::string text;
  for (const Json& token : content.items()) {
    EXPECT_LE(token["logprob"].get<double>(), 0);
    EXPECT_EQ(token["top_logprobs"].size(), 2);
    EXPECT_EQ(token["top_logprobs"][0]["logprob"], token["logprob"]) << "greedy";
    for (const Json& byte : token["bytes"].items()) text += static_cast<char>(byte.get<int>());
  }
  const std::string answer = choice["message"]["content"].text();
  EXPECT_EQ(text.substr(text.size() - answer.size()), answer);

  Json joined = Json::array();
  std::string pieces;
  for (const Json& event : streamed(server, "/v1/chat/completions", body)) {
    const Json& part = event["choices"].size() > 0 ? event["choices"][0] : Json();
    if (const Json* logprobs = part.find("logprobs"); logprobs && !logprobs->is_null())
      for (const Json& token : logprobs->at("content").items()) joined.push_back(token);
    if (const Json* delta = part.find("delta"); delta && delta->find("content"))
      pieces += delta->at("content").text();
  }
  EXPECT_EQ(joined, content);
  EXPECT_EQ(pieces, answer);

  const Json legacy = server.post("/v1/completions", {{"prompt", "Once upon a"},
                                                      {"max_tokens", 3},
                                                      {"temperature", 0},
                                                      {"logprobs", 1}})["choices"][0]["logprobs"];
  ASSERT_EQ(legacy["tokens"].size(), 3);
  EXPECT_EQ(legacy["text_offset"][0].get<int>(), 0);
  EXPECT_EQ(legacy["text_offset"][1].get<size_t>(), legacy["tokens"][0].text().size());
  EXPECT_EQ(legacy["top_logprobs"][1].size(), 1);
  EXPECT_TRUE(
      server
          .post("/v1/chat/completions", {{"messages", messages("x")}, {"max_tokens", 1}})["choices"][0]["logprobs"]
          .is_null());
}

TEST_F(ServerApi, BiasesTokens) {
  RunningServer server(folder_.path());
  const Json token = server.post("/tokenize", {{"content", "xa"}})["tokens"];
  const std::string id = concat(token[token.size() - 1].get<int>());
  Json body{{"prompt", "The old sailor"}, {"max_tokens", 5}, {"temperature", 0.7}, {"logit_bias", {{id, 100}}}};
  const std::string piece =
      server.post("/detokenize", {{"tokens", Json::array({token[token.size() - 1]})}})["content"].text();
  std::string expected;
  for (int i = 0; i < 5; ++i) expected += piece;
  EXPECT_EQ(server.post("/v1/completions", body)["choices"][0]["text"].text(), expected);
  int status = 0;
  body["logit_bias"] = {{"house", 3}};
  server.post("/v1/completions", body, &status);
  EXPECT_EQ(status, 400);
  body["logit_bias"] = {{id, 300}};
  server.post("/v1/completions", body, &status);
  EXPECT_EQ(status, 400);
}

TEST_F(ServerApi, CompletesSeveralPrompts) {
  RunningServer server(folder_.path());
  const auto complete = [&](const Json& prompt, int n) {
    return server.post("/v1/completions", {{"prompt", prompt}, {"max_tokens", 4}, {"seed", 3}, {"n", n}});
  };
  const Json all = complete(Json::array({"The old sailor", "Once upon a time"}), 2);
  ASSERT_EQ(all["choices"].size(), 4);
  EXPECT_EQ(all["choices"][2]["text"], complete("Once upon a time", 1)["choices"][0]["text"]);
  EXPECT_EQ(all["usage"]["prompt_tokens"].get<int>(),
            complete("The old sailor", 1)["usage"]["prompt_tokens"].get<int>() +
                complete("Once upon a time", 1)["usage"]["prompt_tokens"].get<int>());
}

TEST_F(ServerApi, GivesToolsToTheTemplate) {
  RunningServer server(folder_.path(), {}, kToolTemplate);
  const Json call{{"id", "call_1"},
                  {"type", "function"},
                  {"function", {{"name", "weather"}, {"arguments", "{\"city\": \"Oslo\"}"}}}};
  Json body{{"messages",
             Json::array({Json{{"role", "user"}, {"content", "Weather?"}},
                          Json{{"role", "assistant"}, {"content", nullptr}, {"tool_calls", Json::array({call})}},
                          Json{{"role", "tool"}, {"tool_call_id", "call_1"}, {"content", "Rain"}}})},
            {"tools", Json::array({weather_tool()})}};
  const std::string prompt = server.post("/apply-template", body)["prompt"].text();
  EXPECT_NE(prompt.find("Tells the weather"), std::string::npos);
  EXPECT_NE(prompt.find("<assistant><tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n"
                        "</tool_call></assistant><tool>Rain</tool><assistant>"),
            std::string::npos)
      << prompt;
  body["tool_choice"] = "none";
  EXPECT_EQ(server.post("/apply-template", body)["prompt"].text().find("Tells"), std::string::npos);
  body["max_tokens"] = 3;
  body["tool_choice"] = "auto";
  int status = 0;
  EXPECT_EQ(server.post("/v1/chat/completions", body, &status)["choices"].size(), 1);
  EXPECT_EQ(status, 200);

  const Json blocks = Json::array(
      {Json{{"role", "user"}, {"content", "Weather?"}},
       Json{{"role", "assistant"},
            {"content",
             Json::array({Json{
                 {"type", "tool_use"}, {"id", "call_1"}, {"name", "weather"}, {"input", {{"city", "Oslo"}}}}})}},
       Json{{"role", "user"},
            {"content",
             Json::array({Json{{"type", "tool_result"}, {"tool_use_id", "call_1"}, {"content", "Rain"}}})}}});
  const Json tool{{"name", "weather"},
                  {"description", "Tells the weather"},
                  {"input_schema", weather_tool()["function"]["parameters"]}};
  const Json counted =
      server.post("/v1/messages/count_tokens", {{"messages", blocks},
                                                {"tools", Json::array({tool})},
                                                {"thinking", {{"type", "enabled"}, {"budget_tokens", 1024}}}});
  EXPECT_EQ(counted["input_tokens"].get<size_t>(),
            server.post("/tokenize", {{"content", prompt}, {"add_special", true}})["tokens"].size());

  for (const Json& wrong : {Json::array({1}), Json::array({{{"type", "retrieval"}}}),
                            Json::array({{{"type", "function"}, {"function", {{"name", "a b"}}}}})}) {
    server.post("/v1/chat/completions", {{"messages", messages("x")}, {"tools", wrong}}, &status);
    EXPECT_EQ(status, 400) << wrong.dump();
  }
  server.post("/v1/chat/completions", {{"messages", messages("x")}, {"tool_choice", "required"}}, &status);
  EXPECT_EQ(status, 400);
}

TEST_F(ServerApi, AnswersInTheFormOfASchema) {
  RunningServer server(folder_.path(), {}, kToolTemplate);
  const Json schema{
      {"type", "object"},
      {"properties", {{"name", {{"type", "string"}, {"maxLength", 6}}}, {"age", {{"type", "integer"}}}}},
      {"required", Json::array({"name", "age"})},
      {"additionalProperties", false}};
  Json body{
      {"messages", messages("Who is it?")},
      {"temperature", 1.1},
      {"max_tokens", 300},
      {"response_format", {{"type", "json_schema"}, {"json_schema", {{"name", "person"}, {"schema", schema}}}}}};
  for (int seed = 0; seed < 10; ++seed) {
    body["seed"] = seed;
    const Json answer = server.post("/v1/chat/completions", body)["choices"][0];
    EXPECT_EQ(answer["finish_reason"].text(), "stop");
    const std::string text = answer["message"]["content"].text();
    const Json person = Json::parse(text);
    EXPECT_TRUE(person["name"].is_string() && person["age"].is_number_integer() && person.size() == 2) << text;
    body["fathom"] = {{"draft", "none"}};
    EXPECT_EQ(server.post("/v1/chat/completions", body)["choices"][0]["message"]["content"].text(), text);
    body.erase("fathom");
  }
  const Json responded = server.post(
      "/v1/responses", {{"input", "Who?"},
                        {"max_output_tokens", 300},
                        {"text", {{"format", {{"type", "json_schema"}, {"name", "p"}, {"schema", schema}}}}}});
  EXPECT_EQ(Json::parse(responded["output"][0]["content"][0]["text"].text()).size(), 2);

  body["response_format"] = {{"type", "json_object"}};
  const Json any = server.post("/v1/chat/completions", body)["choices"][0];
  EXPECT_TRUE(any["finish_reason"].text() == "length" || Json::parse(any["message"]["content"].text()).is_object());
  int status = 0;
  body["response_format"] = {{"type", "json_schema"}, {"json_schema", {{"schema", {{"not", true}}}}}};
  EXPECT_NE(
      server.post("/v1/chat/completions", body, &status)["error"]["message"].text().find("'not' is not supported"),
      std::string::npos);
  EXPECT_EQ(status, 400);
}

TEST_F(ServerApi, CallsRequiredTools) {
  for (const char* source : {kToolTemplate, kTemplate, static_cast<const char*>(nullptr)}) {
    RunningServer server(folder_.path(), {}, source, 4096);
    Json other = weather_tool();
    other["function"]["name"] = "clock";
    other["function"]["parameters"] = {{"type", "object"},
                                       {"properties", {{"zone", {{"enum", Json::array({"utc", "cet"})}}}}},
                                       {"required", Json::array({"zone"})}};
    Json weather = weather_tool();
    weather["function"]["parameters"]["properties"]["city"]["maxLength"] = 9;
    Json body{{"messages", messages("Weather?")},
              {"tools", Json::array({weather, other})},
              {"tool_choice", "required"},
              {"max_tokens", 400},
              {"temperature", 1}};
    for (int seed = 0; seed < 4; ++seed) {
      body["seed"] = seed;
      if (seed == 3) body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "clock"}}}};
      const Json choice = server.post("/v1/chat/completions", body)["choices"][0];
      EXPECT_EQ(choice["finish_reason"].text(), "tool_calls") << choice.dump();
      ASSERT_EQ(choice["message"]["tool_calls"].size(), 1) << choice.dump();
      const Json call = choice["message"]["tool_calls"][0]["function"];
      const Json arguments = Json::parse(call["arguments"].text());
      EXPECT_TRUE(seed != 3 || call["name"].text() == "clock");
      EXPECT_TRUE(call["name"].text() != "clock" || arguments["zone"] == Json("utc") ||
                  arguments["zone"] == Json("cet"));

      std::string name, joined;
      for (const Json& event : streamed(server, "/v1/chat/completions", body)) {
        if (event["choices"].size() == 0) continue;
        const Json* calls = event["choices"][0]["delta"].find("tool_calls");
        if (!calls) continue;
        if (const Json* named = calls->at(0)["function"].find("name")) name += named->text();
        joined += calls->at(0)["function"]["arguments"].text();
      }
      EXPECT_EQ(name, call["name"].text());
      EXPECT_EQ(joined, call["arguments"].text());
    }
    const Json tool{{"name", "clock"}, {"input_schema", other["function"]["parameters"]}};
    const Json message = server.post("/v1/messages", {{"messages", messages("Time?")},
                                                      {"max_tokens", 200},
                                                      {"tools", Json::array({tool})},
                                                      {"tool_choice", {{"type", "any"}}}});
    EXPECT_EQ(message["stop_reason"].text(), "tool_use");
    EXPECT_EQ(message["content"][0]["type"].text(), "tool_use") << message.dump();
    EXPECT_TRUE(message["content"][0]["input"].contains("zone"));
    const Json response =
        server.post("/v1/responses", {{"input", "Time?"},
                                      {"max_output_tokens", 200},
                                      {"tools", Json::array({{{"type", "function"},
                                                              {"name", "clock"},
                                                              {"parameters", other["function"]["parameters"]}}})},
                                      {"tool_choice", "required"}});
    EXPECT_EQ(response["output"][0]["type"].text(), "function_call") << response.dump();
  }
}

TEST_F(ServerApi, RespondsLikeOpenai) {
  RunningServer server(folder_.path(), {}, kTemplate);
  const Json body{
      {"input", "Once upon a time"}, {"instructions", "Be brief."}, {"max_output_tokens", 6}, {"temperature", 0}};
  const Json first = server.post("/v1/responses", body);
  EXPECT_EQ(first["object"].text(), "response");
  EXPECT_EQ(first["status"].text(), "incomplete");
  EXPECT_EQ(first["output"][0]["type"].text(), "message");
  const std::string text = first["output"][0]["content"][0]["text"].text();
  const Json chat = server.post(
      "/v1/chat/completions", {{"messages", Json::array({Json{{"role", "system"}, {"content", "Be brief."}},
                                                         Json{{"role", "user"}, {"content", "Once upon a time"}}})},
                               {"max_tokens", 6},
                               {"temperature", 0}});
  EXPECT_EQ(chat["choices"][0]["message"]["content"].text(), text);

  std::string joined;
  std::vector<std::string> types;
  int64_t number = 0;
  for (const Json& event : streamed(server, "/v1/responses", body)) {
    EXPECT_EQ(event["sequence_number"].get<int64_t>(), number++);
    if (event["type"].text() == "response.output_text.delta") joined += event["delta"].text();
    if (types.empty() || types.back() != event["type"].text()) types.push_back(event["type"].text());
  }
  EXPECT_EQ(joined, text);
  EXPECT_EQ(types, (std::vector<std::string>{
                       "response.created", "response.in_progress", "response.output_item.added",
                       "response.content_part.added", "response.output_text.delta", "response.output_text.done",
                       "response.content_part.done", "response.output_item.done", "response.incomplete"}));

  const std::string id = first["id"].text();
  const Json next = server.post(
      "/v1/responses",
      {{"input", "And then?"}, {"previous_response_id", id}, {"max_output_tokens", 4}, {"temperature", 0}});
  const Json whole = server.post("/v1/chat/completions",
                                 {{"messages", Json::array({Json{{"role", "user"}, {"content", "Once upon a time"}},
                                                            Json{{"role", "assistant"}, {"content", text}},
                                                            Json{{"role", "user"}, {"content", "And then?"}}})},
                                  {"max_tokens", 4},
                                  {"temperature", 0}});
  EXPECT_EQ(next["output"][0]["content"][0]["text"], whole["choices"][0]["message"]["content"]);
  EXPECT_EQ(server.client().Get("/v1/responses/" + id)->status, 200);
  EXPECT_EQ(server.client().Delete("/v1/responses/" + id)->status, 200);
  int status = 0;
  server.post("/v1/responses", {{"input", "x"}, {"previous_response_id", id}}, &status);
  EXPECT_EQ(status, 404);
  const Json unkept = server.post("/v1/responses", {{"input", "x"}, {"store", false}, {"max_output_tokens", 1}});
  EXPECT_EQ(server.client().Get("/v1/responses/" + unkept["id"].text())->status, 404);
}

TEST_F(ServerApi, EmbedsTexts) {
  RunningServer server(folder_.path());
  const Json inputs = Json::array({"a lamp in the dark", "a ship at sea", "a lamp in the dark"});
  const Json answer = server.post("/v1/embeddings", {{"input", inputs}});
  ASSERT_EQ(answer["data"].size(), 3);
  EXPECT_EQ(answer["data"][0]["embedding"], answer["data"][2]["embedding"]);
  EXPECT_NE(answer["data"][0]["embedding"], answer["data"][1]["embedding"]);
  const auto vector = answer["data"][1]["embedding"].get<std::vector<float>>();
  EXPECT_EQ(vector.size(), test::seedling()->config().width);

  // The normalised state of the last token.
  Session session(test::seedling(), test::runtime());
  session.keep_hidden({test::seedling()->config().layers});
  session.append(encode_prompt(server.service().tokenizer(), "a ship at sea", false));
  double norm = 0;
  for (const float x : session.hidden()) norm += static_cast<double>(x) * x;
  for (size_t i = 0; i < vector.size(); ++i) EXPECT_NEAR(vector[i], session.hidden()[i] / std::sqrt(norm), 1e-6);

  const std::string base64 = server
                                 .post("/v1/embeddings", {{"input", "a ship at sea"},
                                                          {"encoding_format", "base64"}})["data"][0]["embedding"]
                                 .text();
  EXPECT_EQ(base64.size(), (vector.size() * 4 + 2) / 3 * 4);
  const Json few =
      server.post("/v1/embeddings", {{"input", "a ship at sea"}, {"dimensions", 3}})["data"][0]["embedding"];
  ASSERT_EQ(few.size(), 3);
  EXPECT_NEAR(few[0].get<double>() / few[1].get<double>(), vector[0] / vector[1], 1e-4);
  int status = 0;
  for (const Json& wrong : {Json(""), Json(5), Json::array({Json()}), Json::array({-1})}) {
    server.post("/v1/embeddings", {{"input", wrong}}, &status);
    EXPECT_EQ(status, 400) << wrong.dump();
  }
}

TEST_F(ServerApi, RanksDocuments) {
  RunningServer server(folder_.path());
  const std::string query = "Where did the ship with the red sails go?";
  const Json documents = Json::array({"The cook baked bread.", "The ship with the red sails went to the island.",
                                      Json{{"text", "It rained all week."}}});
  const Json body{{"query", query}, {"documents", documents}, {"top_n", 2}, {"return_documents", true}};
  const Json results = server.post("/v1/rerank", body)["results"];
  ASSERT_EQ(results.size(), 2);
  EXPECT_EQ(results[0]["index"].get<int>(), 1);
  EXPECT_EQ(results[0]["document"]["text"], documents[1]);
  EXPECT_GT(results[0]["relevance_score"].get<double>(), results[1]["relevance_score"].get<double>());

  // The mean log-probability of the question, token by token.
  const Tokenizer& tokenizer = server.service().tokenizer();
  Session session(test::seedling(), test::runtime());
  session.append(encode_prompt(tokenizer, documents[1].text() + "\n\nQuestion:", false));
  double sum = 0;
  const std::vector<int32_t> tokens = tokenizer.encode(" " + query, {.add_bos_eos = false});
  for (const int32_t token : tokens) {
    double total = 0;
    for (const float logit : session.logits()) total += std::exp(static_cast<double>(logit));
    sum += session.logits()[token] - std::log(total);
    session.append(std::span(&token, 1));
  }
  EXPECT_NEAR(results[0]["relevance_score"].get<double>(), std::exp(sum / static_cast<double>(tokens.size())),
              1e-6);
}

TEST_F(ServerApi, EndsWholeAnswersOfClientsThatLeave) {
  RunningServer server(folder_.path());
  httplib::Client client = server.client();
  client.set_read_timeout(std::chrono::milliseconds(100));
  const Json body{{"prompt", "Once"}, {"max_tokens", 900}, {"n", 16}, {"fathom", {{"draft", "none"}}}};
  EXPECT_FALSE(client.Post("/v1/completions", body.dump(), "application/json")) << "the client gives up";
  client.stop();
  for (int i = 0; i < 6000 && server.service().scheduler().stats().cancelled == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_GT(server.service().scheduler().stats().cancelled, 0);
}

}  // namespace
}  // namespace fathom::serve
