#include "host/qmp/qmp-message.h"

#include <capnp/compat/json.h>
#include <capnp/message.h>
#include <kj/exception.h>

#include "transport/printable.h"

namespace postern::host {

namespace {

using Json = capnp::JsonValue::Reader;
using Kind = QmpEvent::Kind;

// The virtio-serial port of the agent, which QEMU's event calls by the device's id.
constexpr kj::StringPtr AGENT_PORT = "org.postern.agent.0"_kj;
// Above this a double is no count.
constexpr double MAX_EXACT = 9007199254740992.0;

struct Known {
  kj::StringPtr name;
  Kind kind;
};
constexpr Known KNOWN_EVENTS[] = {
    {"STOP"_kj, Kind::STOP}, {"RESUME"_kj, Kind::RESUME}, {"RESET"_kj, Kind::RESET}, {"SHUTDOWN"_kj, Kind::SHUTDOWN}};

kj::Maybe<Json> member(Json object, kj::StringPtr name) {
  if (!object.isObject()) return nullptr;
  for (auto field : object.getObject()) {
    if (field.getName() == name) return field.getValue();
  }
  return nullptr;
}

kj::Maybe<kj::StringPtr> textOf(Json object, kj::StringPtr name) {
  KJ_IF_MAYBE (value, member(object, name)) {
    if (value->isString()) return kj::StringPtr(value->getString());
  }
  return nullptr;
}

kj::Maybe<bool> boolOf(Json object, kj::StringPtr name) {
  KJ_IF_MAYBE (value, member(object, name)) {
    if (value->isBoolean()) return value->getBoolean();
  }
  return nullptr;
}

kj::Maybe<uint64_t> idOf(Json object) {
  KJ_IF_MAYBE (value, member(object, "id")) {
    if (!value->isNumber()) return nullptr;
    double number = value->getNumber();
    // Written so that what is no number fails as well.
    if (!(number >= 0 && number < MAX_EXACT)) return nullptr;
    auto id = static_cast<uint64_t>(number);
    if (static_cast<double>(id) == number) return id;
  }
  return nullptr;
}

kj::String keep(kj::StringPtr untrusted) {
  return printable(untrusted.asArray(), MAX_QMP_TEXT_BYTES);
}

QmpGarbage garbage(kj::StringPtr why) {
  return {kj::str(why)};
}

QmpMessage parseReturn(Json message, Json value) {
  KJ_IF_MAYBE (id, idOf(message)) {
    QmpAnswer answer{*id, nullptr, nullptr};
    KJ_IF_MAYBE (state, textOf(value, "status")) {
      KJ_IF_MAYBE (running, boolOf(value, "running")) answer.status = QmpAnswer::Status{keep(*state), *running};
    }
    return kj::mv(answer);
  }
  return garbage("an answer without a number");
}

QmpMessage parseError(Json message, Json error) {
  KJ_IF_MAYBE (id, idOf(message)) {
    KJ_IF_MAYBE (description, textOf(error, "desc")) return QmpAnswer{*id, keep(*description), nullptr};
    return QmpAnswer{*id, kj::str("without a reason"), nullptr};
  }
  KJ_IF_MAYBE (description, textOf(error, "desc")) {
    return QmpGarbage{kj::str("an error that answers nothing: ", keep(*description))};
  }
  return garbage("an error that answers nothing");
}

QmpMessage parsePortChange(Json data) {
  KJ_IF_MAYBE (id, textOf(data, "id")) {
    KJ_IF_MAYBE (open, boolOf(data, "open")) {
      return QmpEvent{id->endsWith(AGENT_PORT) ? Kind::AGENT_PORT : Kind::OTHER, *open, nullptr, nullptr};
    }
  }
  return garbage("a VSERPORT_CHANGE that does not say which port, or what of it");
}

QmpMessage parseEvent(Json message, Json name) {
  if (!name.isString()) return garbage("an event without a name");
  auto data = member(message, "data").orDefault(Json());
  kj::StringPtr event = name.getString();
  if (event == "VSERPORT_CHANGE") return parsePortChange(data);
  for (auto& known : KNOWN_EVENTS) {
    if (event == known.name) {
      return QmpEvent{known.kind, false, textOf(data, "reason").map(keep), boolOf(data, "guest")};
    }
  }
  return QmpEvent{Kind::OTHER, false, nullptr, nullptr};
}

QmpMessage parseMessage(Json message) {
  if (!message.isObject()) return garbage("a line that is no JSON object");
  if (member(message, "QMP") != nullptr) return QmpGreeting();
  KJ_IF_MAYBE (event, member(message, "event")) return parseEvent(message, *event);
  KJ_IF_MAYBE (error, member(message, "error")) return parseError(message, *error);
  KJ_IF_MAYBE (value, member(message, "return")) return parseReturn(message, *value);
  return garbage("a JSON object that is no QMP message");
}

}  // namespace

// T58
QmpMessage parseQmp(kj::ArrayPtr<const char> untrustedLine) {
  QmpMessage result = garbage("a line that is no JSON");
  // The codec throws for whatever is no JSON to it, in words about its own source.
  auto thrown = kj::runCatchingExceptions([&] {
    capnp::MallocMessageBuilder tree;
    capnp::JsonCodec codec;
    codec.setMaxNestingDepth(MAX_QMP_NESTING);
    auto root = tree.initRoot<capnp::JsonValue>();
    codec.decodeRaw(untrustedLine, root);
    result = parseMessage(root.asReader());
  });
  if (thrown != nullptr) result = garbage("a line that is no JSON, or nested too deeply");
  return result;
}

}  // namespace postern::host
