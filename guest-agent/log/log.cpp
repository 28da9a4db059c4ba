#include "guest-agent/log/log.h"

#include <kj/vector.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>

namespace postern::guest {

namespace {

constexpr size_t MAX_TEXT_BYTES = 2048;

struct Instant {
  int year;
  unsigned month, day, hour, minute, second, millisecond;
};

// UTC, without the C library's, which reads time zone files.
Instant instantOf(uint64_t microsecondsSince1970) {
  uint64_t seconds = microsecondsSince1970 / 1000000;
  auto days = std::chrono::sys_days(std::chrono::days(static_cast<int>(seconds / 86400)));
  std::chrono::year_month_day date(days);
  auto ofDay = static_cast<unsigned>(seconds % 86400);
  return {int(date.year()),
          unsigned(date.month()),
          unsigned(date.day()),
          ofDay / 3600,
          ofDay / 60 % 60,
          ofDay % 60,
          static_cast<unsigned>(microsecondsSince1970 / 1000 % 1000)};
}

kj::String digits(unsigned number, size_t width) {
  auto text = kj::str(number);
  auto out = kj::heapString(text.size() > width ? text.size() : width);
  memset(out.begin(), '0', out.size());
  memcpy(out.end() - text.size(), text.begin(), text.size());
  return out;
}

kj::String clockOf(const Instant& at) {
  return kj::str(digits(at.hour, 2), ':', digits(at.minute, 2), ':', digits(at.second, 2));
}

// How many bytes the character at the front of `text` has if it is UTF-8 of two bytes or more and shows something;
// else 0. Refuses some rare characters with the overlong forms: lead bytes E0 and F0.
size_t multibyteAt(kj::ArrayPtr<const char> text) {
  auto byteAt = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  auto lead = byteAt(0);
  size_t size = 0;
  if (lead >= 0xc3 && lead <= 0xdf) size = 2;  // C2 begins the controls U+0080 to U+009F
  if (lead >= 0xe1 && lead <= 0xef && lead != 0xed) size = 3;
  if (lead >= 0xf1 && lead <= 0xf3) size = 4;
  if (size == 0 || size > text.size()) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byteAt(i) & 0xc0) != 0x80) return 0;
  }
  // U+2028 to U+202E and U+2066 to U+2069 turn lines and the direction of text around.
  if (byteAt(0) == 0xe2 && (byteAt(1) == 0x80 || byteAt(1) == 0x81)) return 0;
  return size;
}

// Bounded, one line, nothing that moves a terminal's cursor.
kj::String printable(kj::StringPtr text) {
  size_t end = text.size() < MAX_TEXT_BYTES ? text.size() : MAX_TEXT_BYTES;
  kj::Vector<char> out(end);
  for (size_t i = 0; i < end;) {
    auto byte = static_cast<unsigned char>(text[i]);
    size_t size = byte >= ' ' && byte < 0x7f ? 1 : multibyteAt(text.asArray().slice(i, end));
    if (size == 0) {
      out.add('?');
      ++i;
    } else {
      out.addAll(text.slice(i).slice(0, size));
      i += size;
    }
  }
  return kj::heapString(out);
}

kj::String jsonString(kj::StringPtr printableText) {
  kj::Vector<char> out(printableText.size() + 2);
  out.add('"');
  for (char c : printableText) {
    if (c == '"' || c == '\\') out.add('\\');
    out.add(c);
  }
  out.add('"');
  return kj::heapString(out);
}

kj::StringPtr nameOf(LogLevel level) {
  switch (level) {
    case LogLevel::INFO:
      return "info";
    case LogLevel::WARNING:
      return "warning";
    case LogLevel::ERROR:
      return "error";
  }
  KJ_UNREACHABLE;
}

// As syslog numbers them.
unsigned priorityOf(LogLevel level) {
  return level == LogLevel::INFO ? 6 : level == LogLevel::WARNING ? 4 : 3;
}

// Its own state, since spdlog's loggers are process-wide anyway.
LogForm processForm = LogForm::JSON;
kj::StringPtr processName = "agent";

void write(LogLevel level, kj::StringPtr event, kj::StringPtr text) {
  auto now = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch());
  auto line = formatLogLine(processForm, processName, level, static_cast<uint64_t>(now.count()), event, text);
  auto severity = level == LogLevel::INFO      ? spdlog::level::info
                  : level == LogLevel::WARNING ? spdlog::level::warn
                                               : spdlog::level::err;
  spdlog::log(severity, spdlog::string_view_t(line.begin(), line.size()));
}

}  // namespace

LogForm logFormOfStderr() {
  if (isatty(STDERR_FILENO)) return LogForm::TEXT;
  const char* journal = getenv("JOURNAL_STREAM");
  struct stat about;
  if (journal != nullptr && fstat(STDERR_FILENO, &about) == 0 && kj::str(about.st_dev, ':', about.st_ino) == journal) {
    return LogForm::JOURNAL;
  }
  return LogForm::JSON;
}

void setUpLog(LogForm form, kj::StringPtr process) {
  processForm = form;
  processName = process;
  auto logger = std::make_shared<spdlog::logger>("postern", std::make_shared<spdlog::sinks::stderr_sink_st>());
  logger->set_formatter(
      std::make_unique<spdlog::pattern_formatter>("%v", spdlog::pattern_time_type::utc, std::string("\n")));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(kj::mv(logger));
}

kj::String formatLogLine(LogForm form, kj::StringPtr process, LogLevel level, uint64_t microsecondsSince1970,
                         kj::StringPtr event, kj::StringPtr text) {
  auto said = printable(text);
  auto at = instantOf(microsecondsSince1970);
  switch (form) {
    case LogForm::TEXT:
      return kj::str(clockOf(at), ' ', nameOf(level), ' ', process, ' ', event, ": ", said);
    case LogForm::JOURNAL:
      return kj::str('<', priorityOf(level), '>', process, ' ', event, ": ", said);
    case LogForm::JSON:
      return kj::str("{\"time\":\"", digits(static_cast<unsigned>(at.year), 4), '-', digits(at.month, 2), '-',
                     digits(at.day, 2), 'T', clockOf(at), '.', digits(at.millisecond, 3), "Z\",\"level\":\"",
                     nameOf(level), "\",\"process\":\"", process, "\",\"event\":\"", event,
                     "\",\"text\":", jsonString(said), '}');
  }
  KJ_UNREACHABLE;
}

void logInfo(kj::StringPtr event, kj::StringPtr text) {
  write(LogLevel::INFO, event, text);
}
void logWarning(kj::StringPtr event, kj::StringPtr text) {
  write(LogLevel::WARNING, event, text);
}
void logError(kj::StringPtr event, kj::StringPtr text) {
  write(LogLevel::ERROR, event, text);
}

}  // namespace postern::guest
