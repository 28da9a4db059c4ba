#include <string.h>

#include "host/board/board-port.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

constexpr uint64_t BY_POLICY = 1;
constexpr uint64_t BY_HAND = 2;
constexpr size_t LAST_DENIED_BYTES = 64;
static_assert(board::PORT_LAST_DENIED + LAST_DENIED_BYTES / 8 <= board::PORT_WORDS);

struct Counter {
  board::PortCounter word;
  uint64_t BoardPort::*value;
};
constexpr Counter COUNTERS[] = {{board::PORT_OPENED, &BoardPort::opened},
                                {board::PORT_DENIED, &BoardPort::denied},
                                {board::PORT_REFUSED, &BoardPort::refused},
                                {board::PORT_ACTIVE, &BoardPort::active},
                                {board::PORT_BYTES_OUT, &BoardPort::bytesOut},
                                {board::PORT_BYTES_IN, &BoardPort::bytesIn},
                                {board::PORT_MESSAGES_OUT, &BoardPort::messagesOut},
                                {board::PORT_MESSAGES_IN, &BoardPort::messagesIn},
                                {board::PORT_THROTTLED_NS, &BoardPort::throttledNanoseconds},
                                {board::PORT_MIRROR_DROPPED, &BoardPort::mirrorDropped}};

}  // namespace

PortWords encodePort(const BoardPort& port) {
  PortWords words{};
  words[board::PORT_BLOCKED] = (port.blockedByPolicy ? BY_POLICY : 0) | (port.blockedByHand ? BY_HAND : 0);
  for (auto& counter : COUNTERS) words[counter.word] = port.*counter.value;
  char text[LAST_DENIED_BYTES] = {};  // the last byte stays NUL
  auto shown = printable(port.lastDenied, LAST_DENIED_BYTES - 1);
  memcpy(text, shown.begin(), kj::min(shown.size(), LAST_DENIED_BYTES - 1));
  memcpy(&words[board::PORT_LAST_DENIED], text, sizeof(text));
  return words;
}

BoardPort decodePort(const PortWords& untrusted) {
  BoardPort port;
  port.blockedByPolicy = (untrusted[board::PORT_BLOCKED] & BY_POLICY) != 0;
  port.blockedByHand = (untrusted[board::PORT_BLOCKED] & BY_HAND) != 0;
  for (auto& counter : COUNTERS) port.*counter.value = untrusted[counter.word];
  char text[LAST_DENIED_BYTES];
  memcpy(text, &untrusted[board::PORT_LAST_DENIED], sizeof(text));
  port.lastDenied = printable(kj::heapString(text, strnlen(text, sizeof(text))), LAST_DENIED_BYTES);
  return port;
}

}  // namespace postern::host
