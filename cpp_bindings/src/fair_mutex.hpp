/// @file
/// A mutex that serves threads in the order in which they ask.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace rvos_edge {

/// A mutex that serves threads in the order in which they ask.
///
/// A std::mutex may go to the same thread again and again: a thread that steps frame after frame could keep out a
/// thread that sets queries for seconds.
class FairMutex {
 public:
  void lock() {
    std::unique_lock<std::mutex> guard(mutex_);
    const std::uint64_t mine = last_++;
    turn_.wait(guard, [&] { return mine == next_; });
  }

  void unlock() {
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      ++next_;
    }
    turn_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable turn_;
  std::uint64_t last_ = 0;
  std::uint64_t next_ = 0;
};

}  // namespace rvos_edge
