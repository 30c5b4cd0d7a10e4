#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "eval/line_chart.h"
#include "text_match.h"

namespace fathom::eval {
namespace {

LineChart chart_of(std::vector<ChartPanel> panels) {
  return {.title = "A title", .x_title = "position [tokens]", .y_title = "rate", .panels = panels};
}

TEST(LineChart, PointsAreAtTheirCoordinates) {
  // x: 0 to 80 in pixels 56 to 744; y: 0 to 2 in 150 pixels
  const std::string svg = line_chart_svg(chart_of({{"panel", {{"a", {{0, 0}, {40, 1}, {80, 2}}}}}}));
  const size_t at = svg.find("d=\"M56.0 ");
  ASSERT_NE(at, svg.npos) << svg;
  double x[3], y[3];
  ASSERT_EQ(std::sscanf(svg.c_str() + at, "d=\"M%lf %lfL%lf %lfL%lf %lf", x, y, x + 1, y + 1, x + 2, y + 2), 6);
  EXPECT_EQ(x[1], 400);
  EXPECT_EQ(x[2], 744);
  EXPECT_EQ(y[0] - y[1], 75);
  EXPECT_EQ(y[0] - y[2], 150);
}

TEST(LineChart, HasAxesTitlesALegendAndBothColourSchemes) {
  const std::string svg = line_chart_svg(
      chart_of({{"first", {{"a", {{0, 1}, {80, 3}}}, {"b", {{0, 2}}}}}, {"second", {{"a", {{10, 2}}}}}}));
  for (const char* part : {">A title<", ">position [tokens]<", ">rate<", ">first<", ">second<", ">a<", ">b<", ">0<",
                           ">80<", ">1<", ">3<", "prefers-color-scheme:dark"})
    EXPECT_NE(svg.find(part), svg.npos) << part;
  EXPECT_EQ(occurrences(svg, ">a<"), 1u) << "one entry in the legend for both panels";
  EXPECT_EQ(occurrences(svg, "class=\"line m0\""), 3u) << "the legend and two panels";
  EXPECT_EQ(occurrences(svg, "class=\"line m1\""), 2u);
}

TEST(LineChart, TextsCannotEndTheirElement) {
  const std::string bad = "</text><script>\"&\xff\x01\n";
  const std::string svg =
      line_chart_svg({.title = bad, .x_title = bad, .y_title = bad, .panels = {{bad, {{bad, {}}}}}});
  EXPECT_EQ(svg.find("<script"), svg.npos);
  EXPECT_EQ(occurrences(svg, "&lt;/text&gt;&lt;script&gt;\"&amp;???"), 6u) << svg;
  EXPECT_EQ(utf8_valid_prefix(svg), svg.size());
}

TEST(LineChart, NegativeAndNotFiniteValuesAreNotDrawn) {
  const double nan = std::nan(""), infinite = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(line_chart_svg({}).ends_with("</svg>\n"));
  const std::string svg =
      line_chart_svg(chart_of({{"p", {{"a", {{nan, 1}, {1, infinite}, {-1, 1}, {1, -1}}}, {"b", {}}}}}));
  EXPECT_EQ(occurrences(svg, "<path"), 2u) << "the legend only";
  for (const char* part : {"nan", "inf"}) EXPECT_EQ(svg.find(part), svg.npos);
}

TEST(LineChart, LongNamesAreCutAndManyNamesUseSeveralRows) {
  ChartPanel panel{"p", {}};
  for (int i = 0; i < 30; ++i) panel.lines.push_back({std::string(200, 'x') + std::to_string(i), {{1, 2}}});
  const std::string svg = line_chart_svg(chart_of({panel}));
  EXPECT_EQ(svg.find(std::string(91, 'x')), svg.npos);
  EXPECT_EQ(occurrences(svg, "…"), 30u);
  EXPECT_NE(svg.find("stroke-dasharray=\"7 3\""), svg.npos)
      << "an eighth line has the first colour and another dash";
}

}  // namespace
}  // namespace fathom::eval
