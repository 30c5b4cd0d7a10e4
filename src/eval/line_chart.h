#pragma once

#include <string>
#include <vector>

namespace fathom::eval {

struct ChartPoint {
  double x = 0, y = 0;
};

struct ChartLine {
  std::string name;  // lines of the same name have the same colour in all panels, and one entry in the legend
  std::vector<ChartPoint> points;
};

struct ChartPanel {
  std::string title;
  std::vector<ChartLine> lines;
};

/// Lines in panels, one below the other, that have the same axes. Both axes start at 0.
struct LineChart {
  std::string title, x_title, y_title;  // axes with their units
  std::vector<ChartPanel> panels;
};

/// Returns the chart as an SVG image, readable on light and dark backgrounds. Texts may be any bytes. Points with
/// values that are negative or not finite are left out.
std::string line_chart_svg(const LineChart& chart);

}  // namespace fathom::eval
