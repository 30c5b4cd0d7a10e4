#include "eval/line_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/utf8.h"

namespace fathom::eval {
namespace {

constexpr int kColours = 7;
constexpr const char* kDashes[] = {"", "7 3", "2 3"};  // of the lines that have the same colour

/// The colours are those of report.css.
constexpr const char* kStyle = R"(<style>
text{font:12px sans-serif;fill:#1b1c1e}
.title{font-weight:bold}
.paper{fill:#fff}
.grid{stroke:#dedfe1}
.axis{stroke:#62666b}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.m0{stroke:#0b62a8}.m1{stroke:#c8500a}.m2{stroke:#008a63}.m3{stroke:#b0568b}
.m4{stroke:#b98300}.m5{stroke:#3d9bd6}.m6{stroke:#75589f}
@media(prefers-color-scheme:dark){
text{fill:#e5e6e8}
.paper{fill:#131416}
.grid{stroke:#303236}
.axis{stroke:#9b9fa5}
.m0{stroke:#6db3f0}.m1{stroke:#f08a4b}.m2{stroke:#3cc39a}.m3{stroke:#e095bf}
.m4{stroke:#e3b341}.m5{stroke:#a5d8fa}.m6{stroke:#b9a0e0}
}
</style>
)";

// Lengths in pixels.
constexpr int kWidth = 760, kLeft = 56, kRight = 16, kPlotHeight = 150, kMargin = 12, kLineHeight = 18;
constexpr int kAbovePlot = 30;   // for the title of a panel
constexpr int kBelowPlot = 26;   // for the numbers of the x axis
constexpr int kCharacter = 7;    // mean width
constexpr int kSwatch = 30;      // width of the line in the legend
constexpr size_t kLongest = 90;  // characters of a text that are shown

std::string decimal(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

/// Returns the text for XML: control characters and invalid UTF-8 are replaced by "?", and a long text is cut.
std::string xml(std::string_view text) {
  std::string out;
  size_t characters = 0;
  for (size_t at = 0; at < text.size(); ++characters) {
    if (characters == kLongest) return out + "…";
    const size_t length = utf8_length(text.substr(at));
    const uint32_t code = length == 0 ? 0 : utf8_code_point(text.substr(at));
    if (code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0xfffe || code == 0xffff) {
      out += '?';
    } else if (code == '<') {
      out += "&lt;";
    } else if (code == '>') {
      out += "&gt;";
    } else if (code == '&') {
      out += "&amp;";
    } else {
      out += text.substr(at, length);
    }
    at += std::max<size_t>(length, 1);
  }
  return out;
}

/// An axis from 0 to `to`, which is a multiple of the step of its numbers.
struct ChartAxis {
  double to, step;
  int start, end;  // pixels of the bounds

  double at(double value) const { return start + value / to * (end - start); }
  int digits() const { return std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 6); }
};

/// Returns an axis with about `count` numbers that covers `largest`.
ChartAxis axis_of(double largest, int count, int start, int end) {
  const double range = largest > 0 ? largest : 1;
  const double unit = std::pow(10, std::floor(std::log10(range / count)));
  double step = 10 * unit;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * unit >= range / count * 0.999) step = factor * unit;
  return {step * std::ceil(range / step - 1e-9), step, start, end};
}

bool is_drawn(const ChartPoint& point) {
  return std::isfinite(point.x) && std::isfinite(point.y) && point.x >= 0 && point.y >= 0;
}

class ChartWriter {
 public:
  explicit ChartWriter(const LineChart& chart) : chart_(chart) {
    for (const ChartPanel& panel : chart.panels) {
      for (const ChartLine& line : panel.lines) {
        if (std::ranges::find(names_, line.name) == names_.end()) names_.push_back(line.name);
        for (const ChartPoint& point : line.points) {
          if (!is_drawn(point)) continue;
          largest_x_ = std::max(largest_x_, point.x);
          largest_y_ = std::max(largest_y_, point.y);
        }
      }
    }
  }

  std::string write() {
    int y = kMargin + kLineHeight;
    text(kLeft, y, "title", "start", chart_.title);
    y = legend(y + kLineHeight + 4);
    text(kLeft, y, "", "start", chart_.y_title);
    for (const ChartPanel& panel : chart_.panels) {
      y += kAbovePlot + kPlotHeight;
      this->panel(panel, y);
      y += kBelowPlot;
    }
    y += kLineHeight - 4;
    text(kWidth - kRight, y, "", "end", chart_.x_title);
    const int height = y + kMargin;
    return concat(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 )", kWidth, " ", height, "\" width=\"",
                  kWidth, "\" height=\"", height, "\" role=\"img\">\n<title>", xml(chart_.title), "</title>\n",
                  kStyle, "<rect class=\"paper\" width=\"", kWidth, "\" height=\"", height, "\"/>\n", out_,
                  "</svg>\n");
  }

 private:
  void text(int x, int y, const char* kind, const char* anchor, std::string_view content) {
    out_ += concat("<text class=\"", kind, "\" x=\"", x, "\" y=\"", y, "\" text-anchor=\"", anchor, "\">",
                   xml(content), "</text>\n");
  }

  void rule(const char* kind, double x1, double y1, double x2, double y2) {
    out_ += concat("<line class=\"", kind, "\" x1=\"", decimal(x1, 1), "\" y1=\"", decimal(y1, 1), "\" x2=\"",
                   decimal(x2, 1), "\" y2=\"", decimal(y2, 1), "\"/>\n");
  }

  /// Writes a path in the style of the named line.
  void path(const std::string& name, const std::string& commands) {
    const auto index = std::ranges::find(names_, name) - names_.begin();
    const char* dash = kDashes[index / kColours % std::ssize(kDashes)];
    out_ += concat("<path class=\"line m", index % kColours, "\" d=\"", commands, "\"");
    if (*dash) out_ += concat(" stroke-dasharray=\"", dash, "\"");
    out_ += "/>\n";
  }

  /// Writes the names of the lines in rows from y downwards. Returns the y of the row after them.
  int legend(int y) {
    int x = kLeft;
    for (const std::string& name : names_) {
      const auto characters = std::ranges::count_if(name, [](char c) { return (c & 0xc0) != 0x80; });
      const int width = kSwatch + 8 + kCharacter * static_cast<int>(std::min<size_t>(characters, kLongest)) + 18;
      if (x > kLeft && x + width > kWidth - kRight) {
        x = kLeft;
        y += kLineHeight;
      }
      path(name, concat("M", x, " ", y - 4, "h", kSwatch));
      text(x + kSwatch + 8, y, "", "start", name);
      x += width;
    }
    return y + kLineHeight + 6;
  }

  void panel(const ChartPanel& panel, int bottom) {
    const int top = bottom - kPlotHeight;
    const ChartAxis x = axis_of(largest_x_, 8, kLeft, kWidth - kRight);
    const ChartAxis y = axis_of(largest_y_, 4, bottom, top);
    text(kLeft, top - 8, "title", "start", panel.title);
    for (int i = 0; i * y.step <= y.to * (1 + 1e-9); ++i) {
      const double at = y.at(i * y.step);
      rule(i == 0 ? "axis" : "grid", kLeft, at, kWidth - kRight, at);
      text(kLeft - 8, static_cast<int>(at) + 4, "", "end", decimal(i * y.step, y.digits()));
    }
    for (int i = 0; i * x.step <= x.to * (1 + 1e-9); ++i) {
      const double at = x.at(i * x.step);
      rule("axis", at, bottom, at, bottom + 4);
      text(static_cast<int>(at), bottom + 18, "", "middle", decimal(i * x.step, x.digits()));
    }
    for (const ChartLine& line : panel.lines) {
      std::string commands;
      for (const ChartPoint& point : line.points) {
        if (!is_drawn(point)) continue;
        commands += concat(commands.empty() ? "M" : "L", decimal(x.at(point.x), 1), " ", decimal(y.at(point.y), 1));
      }
      if (!commands.empty()) path(line.name, commands);
    }
  }

  const LineChart& chart_;
  std::vector<std::string> names_;
  double largest_x_ = 0, largest_y_ = 0;
  std::string out_;
};

}  // namespace

std::string line_chart_svg(const LineChart& chart) { return ChartWriter(chart).write(); }

}  // namespace fathom::eval
