#include "host/log/log.h"

#include <kj/vector.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>
#include <unistd.h>

#include "transport/printable.h"

namespace postern::host {

namespace {

enum class Form { TEXT, JSON, JOURNAL };
Form form = Form::TEXT;

constexpr size_t MAX_LOG_TEXT_BYTES = 2000;

spdlog::level::level_enum levelOf(LogLevel level) {
  switch (level) {
    case LogLevel::DEBUG:
      return spdlog::level::debug;
    case LogLevel::INFO:
      return spdlog::level::info;
    case LogLevel::WARNING:
      return spdlog::level::warn;
    case LogLevel::ERROR:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// syslog's numbers, which the journal reads from "<N>" at the start of a line.
int priorityOf(LogLevel level) {
  switch (level) {
    case LogLevel::DEBUG:
      return 7;
    case LogLevel::INFO:
      return 6;
    case LogLevel::WARNING:
      return 4;
    case LogLevel::ERROR:
      return 3;
  }
  return 3;
}

// Printable ASCII for JSON: what is left to escape are two characters.
kj::String quoted(kj::StringPtr text) {
  kj::Vector<char> out;
  out.add('"');
  for (char c : text) {
    if (c == '"' || c == '\\') out.add('\\');
    out.add(c);
  }
  out.add('"');
  out.add('\0');
  return kj::String(out.releaseAsArray());
}

}  // namespace

void setUpLog(kj::StringPtr program, LogLevel least) {
  std::shared_ptr<spdlog::sinks::sink> sink;
  if (isatty(STDERR_FILENO)) {
    form = Form::TEXT;
    sink = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>();
  } else {
    form = getenv("JOURNAL_STREAM") != nullptr ? Form::JOURNAL : Form::JSON;
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  auto logger = std::make_shared<spdlog::logger>(program.cStr(), std::move(sink));
  const char* pattern = form == Form::TEXT ? "%Y-%m-%dT%H:%M:%S.%eZ %^%l%$ %n %v"
                        : form == Form::JOURNAL
                            ? "%v"
                            : "{\"time\":\"%Y-%m-%dT%H:%M:%S.%eZ\",\"level\":\"%l\",\"program\":\"%n\",%v}";
  logger->set_formatter(std::make_unique<spdlog::pattern_formatter>(pattern, spdlog::pattern_time_type::utc));
  logger->set_level(levelOf(least));
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

void logEvent(LogLevel level, kj::StringPtr event, kj::StringPtr text, kj::StringPtr vm) {
  auto safe = printable(text, MAX_LOG_TEXT_BYTES);
  auto name = printable(vm, 64);
  kj::String line;
  if (form == Form::JSON) {
    line = name.size() == 0
               ? kj::str("\"event\":", quoted(event), ",\"text\":", quoted(safe))
               : kj::str("\"event\":", quoted(event), ",\"vm\":", quoted(name), ",\"text\":", quoted(safe));
  } else {
    line = name.size() == 0 ? kj::str(event, ": ", safe) : kj::str(event, ' ', name, ": ", safe);
    if (form == Form::JOURNAL) line = kj::str('<', priorityOf(level), '>', line);
  }
  spdlog::default_logger_raw()->log(levelOf(level), "{}", std::string_view(line.begin(), line.size()));
}

}  // namespace postern::host
