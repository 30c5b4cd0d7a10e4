// HTTPS, with a certificate made for the test.
#include <gtest/gtest.h>
#include <httplib.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cstdio>
#include <fstream>
#include <memory>

#include "base/error.h"
#include "running_server.h"
#include "temporary_folder.h"

namespace fathom::serve {
namespace {

/// Writes a self-signed certificate for localhost and its key as PEM files.
void write_certificate(const std::string& certificate_path, const std::string& key_path) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_set_pubkey(certificate.get(), key.get());
  X509_NAME* name = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("localhost"), -1, -1,
                             0);
  X509_set_issuer_name(certificate.get(), name);
  ASSERT_NE(X509_sign(certificate.get(), key.get(), EVP_sha256()), 0);
  const auto write = [](const std::string& path, const auto& content) {
    const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "w"), std::fclose);
    ASSERT_TRUE(file && content(file.get()) == 1);
  };
  write(certificate_path, [&](FILE* file) { return PEM_write_X509(file, certificate.get()); });
  write(key_path,
        [&](FILE* file) { return PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr); });
}

TEST(ServerTls, AnswersOverHttps) {
  const test::TemporaryFolder folder;
  const std::string certificate = folder.file("certificate.pem"), key = folder.file("key.pem");
  write_certificate(certificate, key);
  RunningServer server(folder.path(), {.certificate = certificate, .private_key = key});
  httplib::SSLClient client("127.0.0.1", server.port());
  client.enable_server_certificate_verification(false);
  client.set_read_timeout(60);
  const httplib::Result health = client.Get("/health");
  ASSERT_TRUE(health);
  EXPECT_EQ(health->status, 200);
  const httplib::Result text = client.Post(
      "/v1/completions", Json{{"prompt", "The old sailor"}, {"max_tokens", 4}}.dump(), "application/json");
  ASSERT_TRUE(text);
  EXPECT_EQ(Json::parse(text->body)["usage"]["completion_tokens"].get<int>(), 4);
  const httplib::Result stream =
      client.Post("/v1/completions", Json{{"prompt", "The old sailor"}, {"max_tokens", 4}, {"stream", true}}.dump(),
                  "application/json");
  ASSERT_TRUE(stream);
  EXPECT_EQ(events_of(stream->body).back(), "[DONE]");
  httplib::Client plain("127.0.0.1", server.port());
  plain.set_read_timeout(std::chrono::seconds(2));
  EXPECT_FALSE(plain.Get("/health")) << "HTTP without TLS";
}

TEST(ServerTls, WrongCertificatesAreErrors) {
  const test::TemporaryFolder folder;
  const std::string certificate = folder.file("certificate.pem"), key = folder.file("key.pem");
  write_certificate(certificate, key);
  const std::string other = folder.file("other.pem"), other_key = folder.file("other-key.pem");
  write_certificate(other, other_key);
  std::ofstream(folder.file("text.pem")) << "no certificate\n";
  for (const auto& [first, second] : {std::pair(certificate, other_key), std::pair(folder.file("text.pem"), key),
                                      std::pair(certificate, folder.file("missing.pem"))})
    EXPECT_THROW(RunningServer(folder.path(), {.certificate = first, .private_key = second}), Error);
}

}  // namespace
}  // namespace fathom::serve
