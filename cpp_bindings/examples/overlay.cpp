#include "overlay.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <opencv2/imgproc.hpp>

namespace rvos_edge_examples {
namespace {

/// BGR colours that colour-blind people can distinguish (Okabe and Ito).
const std::array<cv::Scalar, 7> colours = {
    {{0, 159, 230}, {233, 180, 86}, {115, 158, 0}, {66, 228, 240}, {178, 114, 0}, {0, 94, 213}, {167, 121, 204}}};

void draw_mask(cv::Mat& frame, const cv::Mat& mask, const cv::Scalar& colour, double opacity) {
  const cv::Rect box = cv::boundingRect(mask);
  if (box.empty()) {
    return;
  }
  cv::Mat part = frame(box);
  cv::Mat tinted;
  cv::addWeighted(part, 1 - opacity, cv::Mat(part.size(), part.type(), colour), opacity, 0, tinted);
  tinted.copyTo(part, mask(box));
  std::vector<std::vector<cv::Point>> contours;
  cv::findContours(mask, contours, cv::RETR_EXTERNAL, cv::CHAIN_APPROX_NONE);
  cv::drawContours(frame, contours, -1, colour, std::max(1, std::min(frame.rows, frame.cols) / 400), cv::LINE_AA);
}

/// Replace characters other than ASCII, which cv::putText cannot draw, by question marks.
std::string ascii(const std::string& text) {
  std::string out;
  for (const char byte : text) {
    const auto value = static_cast<unsigned char>(byte);
    if (value < 0x80) {
      out += byte;
    } else if (value >= 0xC0) {
      out += '?';
    }
  }
  return out;
}

}  // namespace

void draw_overlay(cv::Mat& frame, const rvos_edge::Result& result, double opacity) {
  const auto pixels = static_cast<std::size_t>(frame.rows) * static_cast<std::size_t>(frame.cols);
  for (std::size_t i = 0; i < result.queries.size(); ++i) {
    // cv::Mat takes a mutable pointer, but the data is only read.
    auto* data = const_cast<std::uint8_t*>(result.masks.data() + i * pixels);
    draw_mask(frame, cv::Mat(frame.rows, frame.cols, CV_8U, data), colours[i % colours.size()], opacity);
  }
  const double scale = std::max(0.4, frame.rows / 900.0);
  const int line = cvRound(28 * scale);
  for (std::size_t i = 0; i < result.queries.size(); ++i) {
    char score[16];
    std::snprintf(score, sizeof score, "  %.2f", static_cast<double>(result.scores[i]));
    const std::string label = ascii(result.queries[i]) + score;
    const cv::Point origin(line / 2, line * static_cast<int>(i + 1));
    cv::putText(frame, label, origin, cv::FONT_HERSHEY_SIMPLEX, scale, {0, 0, 0}, 3, cv::LINE_AA);
    cv::putText(frame, label, origin, cv::FONT_HERSHEY_SIMPLEX, scale, colours[i % colours.size()], 1, cv::LINE_AA);
  }
}

}  // namespace rvos_edge_examples
