#include <gtest/gtest.h>

#include <string>

#include "base/byte_stream.h"
#include "base/error.h"

namespace fathom {
namespace {

ByteWriter written() {
  ByteWriter out;
  out.add(int64_t{-5});
  out.add(2.5f);
  out.add_flag(true);
  out.add_list(std::vector<uint16_t>{1, 2, 3});
  out.add_text("text");
  return out;
}

void read(ByteReader& in) {
  EXPECT_EQ(in.take_int("number", -5, 5), -5);
  EXPECT_EQ(in.take<float>(), 2.5f);
  EXPECT_TRUE(in.take_flag());
  EXPECT_EQ(in.take_list<uint16_t>(3), (std::vector<uint16_t>{1, 2, 3}));
  EXPECT_EQ(in.take_text(), "text");
  in.expect_end();
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ByteStream, ReadsWhatWasWritten) {
  const ByteWriter out = written();
  ByteReader in(out.bytes(), "the bytes");
  read(in);
}

TEST(ByteStream, MissingBytesAreErrors) {
  const ByteWriter out = written();
  for (size_t size = 0; size < out.bytes().size(); ++size) {
    ByteReader in(out.bytes().first(size), "the bytes");
    EXPECT_EQ(error_of([&] { read(in); }), "the bytes: it ends early") << size;
  }
}

TEST(ByteStream, NumbersOutsideTheirRangeAreErrors) {
  ByteWriter out;
  out.add(int64_t{7});
  ByteReader below(out.bytes(), "the bytes"), above(out.bytes(), "the bytes");
  EXPECT_EQ(error_of([&] { below.take_int("pages", 8, 10); }),
            "the bytes: pages: expected a number from 8 to 10, found 7");
  EXPECT_EQ(error_of([&] { above.take_int("pages", 0, 6); }),
            "the bytes: pages: expected a number from 0 to 6, found 7");
}

TEST(ByteStream, ListsOfAnotherLengthAreErrors) {
  ByteWriter out;
  out.add_list(std::vector<float>{1, 2});
  ByteReader other(out.bytes(), "the bytes"), longer(out.bytes(), "the bytes"), fits(out.bytes(), "the bytes");
  EXPECT_EQ(error_of([&] { other.take_list<float>(3); }), "the bytes: expected a list of 3 values, found 2");
  EXPECT_EQ(error_of([&] { longer.take_list_up_to<float>(1); }),
            "the bytes: expected a list of at most 1 values, found 2");
  EXPECT_EQ(fits.take_list_up_to<float>(2).size(), 2u);
}

TEST(ByteStream, CountsThatOverflowAreErrors) {
  for (const uint64_t count : {~uint64_t{0}, uint64_t{1} << 62, uint64_t{1} << 61}) {
    ByteWriter out;
    out.add(count);
    ByteReader list(out.bytes(), "the bytes"), text(out.bytes(), "the bytes");
    EXPECT_EQ(error_of([&] { list.take_list<uint64_t>(); }), "the bytes: it ends early");
    EXPECT_EQ(error_of([&] { text.take_text(); }), "the bytes: it ends early");
  }
}

TEST(ByteStream, BytesAfterTheEndAreAnError) {
  ByteWriter out = written();
  out.add(uint16_t{0});
  ByteReader in(out.bytes(), "the bytes");
  EXPECT_EQ(error_of([&] { read(in); }), "the bytes: expected the end, found 2 more bytes");
}

}  // namespace
}  // namespace fathom
