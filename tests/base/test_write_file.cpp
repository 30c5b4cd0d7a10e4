#include "base/write_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "base/error.h"
#include "temporary_folder.h"

namespace fathom {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string write_error(const std::string& path, const std::string& text) {
  try {
    write_file(path, bytes_of(text));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// Creates a folder for each test, so that the test can count the remaining files.
class WriteFile : public testing::Test {
 protected:
  std::string path(const char* name) const { return folder_ + "/" + name; }
  size_t files() const {
    return std::distance(std::filesystem::directory_iterator(folder_), std::filesystem::directory_iterator());
  }

  const test::TemporaryFolder temporary_;
  const std::string& folder_ = temporary_.path();
};

TEST_F(WriteFile, WritesTheBytesAndLeavesNoOtherFile) {
  write_file(path("a"), bytes_of("first, and longer"));
  EXPECT_EQ(content(path("a")), "first, and longer");
  write_file(path("a"), bytes_of("second"));
  EXPECT_EQ(content(path("a")), "second");
  write_file(path("a"), {});
  EXPECT_EQ(content(path("a")), "");
  EXPECT_EQ(files(), 1);
}

TEST_F(WriteFile, KeepsThePermissionsOfTheFileItReplaces) {
  write_file(path("a"), bytes_of("x"));
  std::filesystem::permissions(path("a"), std::filesystem::perms{0640});
  write_file(path("a"), bytes_of("y"));
  EXPECT_EQ(std::filesystem::status(path("a")).permissions(), std::filesystem::perms{0640});
}

TEST_F(WriteFile, ReplacesTheTargetOfALink) {
  write_file(path("a"), bytes_of("old"));
  std::filesystem::create_symlink(path("a"), path("link"));
  write_file(path("link"), bytes_of("new"));
  EXPECT_TRUE(std::filesystem::is_symlink(path("link")));
  EXPECT_EQ(content(path("a")), "new");
  EXPECT_EQ(files(), 2);
}

TEST_F(WriteFile, FailedWriteKeepsTheOldFileAndLeavesNoTemporary) {
  write_file(path("a"), bytes_of("old"));
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string error = write_error(path("a"), std::string(10000, 'x'));
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(error.find(path("a") + ": cannot write byte 4096: File too large"), std::string::npos) << error;
  EXPECT_EQ(content(path("a")), "old");
  EXPECT_EQ(files(), 1);
}

TEST_F(WriteFile, ErrorsNameTheFile) {
  EXPECT_NE(write_error(path("no/folder"), "x").find(path("no/folder")), std::string::npos);
  EXPECT_NE(write_error(folder_, "x").find(folder_ + ": cannot write: is a folder"), std::string::npos);
  EXPECT_NE(write_error("", "x"), "");
}

TEST_F(WriteFile, FullDeviceIsAnErrorAndRemainsADevice) {
  EXPECT_NE(write_error("/dev/full", "x").find("/dev/full: cannot write byte 0 of 1: No space left"),
            std::string::npos);
  EXPECT_EQ(write_error("/dev/null", "x"), "");
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

TEST_F(WriteFile, PipesAreWrittenDirectly) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const std::string text(300000, 'p');  // more than a pipe holds
  std::string read;
  std::thread reader([&] { read = content(path("pipe")); });
  const std::string error = write_error(path("pipe"), text);
  reader.join();
  EXPECT_EQ(error, "");
  EXPECT_EQ(read, text);
}

}  // namespace
}  // namespace fathom
