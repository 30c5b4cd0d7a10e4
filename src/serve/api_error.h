#pragma once

#include <exception>
#include <string>
#include <utility>

#include "base/error.h"

namespace fathom::serve {

/// An error of a request: the status of the response, and a code that programs can recognise.
class ApiError : public Error {
 public:
  ApiError(int status, const std::string& message, std::string code = "")
      : Error(message), status_(status), code_(std::move(code)) {}
  int status() const { return status_; }
  const std::string& code() const { return code_; }

 private:
  int status_;
  std::string code_;
};

/// Returns the error that a client gets for a failure. The text of an internal error may name files of the machine:
/// it goes to stderr instead.
ApiError public_error(const std::exception_ptr& failure);

}  // namespace fathom::serve
