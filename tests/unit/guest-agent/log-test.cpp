#include "guest-agent/log/log.h"

#include <doctest/doctest.h>

#include <string>

using namespace postern::guest;

namespace {

constexpr uint64_t AT = 1798761599'123456;  // 2026-12-31T23:59:59.123456Z

std::string line(LogForm form, kj::StringPtr text, LogLevel level = LogLevel::WARNING) {
  return formatLogLine(form, "agent", level, AT, "link-lost", text).cStr();
}

}  // namespace

TEST_CASE("each form of the log has level, process, event and text") {
  CHECK(line(LogForm::TEXT, "away") == "23:59:59 warning agent link-lost: away");
  CHECK(line(LogForm::JOURNAL, "away") == "<4>agent link-lost: away");
  CHECK(line(LogForm::JSON, "away") ==
        "{\"time\":\"2026-12-31T23:59:59.123Z\",\"level\":\"warning\",\"process\":\"agent\",\"event\":\"link-lost\","
        "\"text\":\"away\"}");
}

TEST_CASE("a line stays one line, whatever a peer put into it") {
  CHECK(line(LogForm::JOURNAL, "a\nb\r\x1b[2Jc\x7f") == "<4>agent link-lost: a?b??[2Jc?");
  CHECK(line(LogForm::JOURNAL, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x92\xa9").find('\n') == std::string::npos);
  // C1 controls, broken and overlong sequences, and characters that turn text around.
  for (auto* bad :
       {"\xc2\x9b", "\xff", "\xc3", "\xe2\x82", "\xc0\x80", "\xe0\x80\x80", "\xe2\x80\xae", "\xed\xa0\x80"}) {
    auto shown = line(LogForm::JOURNAL, bad);
    for (char c : shown) CHECK((c >= ' ' && c <= '~'));
  }
  CHECK(line(LogForm::JSON, "say \"hi\" \\").find("say \\\"hi\\\" \\\\\"}") != std::string::npos);
}

TEST_CASE("a text is bounded") {
  CHECK(line(LogForm::JSON, kj::heapString(std::string(100000, 'x').c_str())).size() < 3000);
}
