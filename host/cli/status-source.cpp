#include "host/cli/status-source.h"

#include <algorithm>

#include "host/board/board-reader.h"
#include "protocol/policy/wording.h"

namespace postern::cli {

namespace {

kj::Vector<VmState> fromControl(Invocation& run, kj::ArrayPtr<const kj::String> names) {
  auto request = run.control().control().statusRequest();
  auto list = request.initVms(static_cast<capnp::uint>(names.size()));
  for (capnp::uint i = 0; i < names.size(); ++i) list.set(i, names[i]);
  auto response = run.await(request.send(), "posternd");
  kj::Vector<VmState> states;
  for (auto vm : response.getVms()) states.add(stateOf(vm));
  return states;
}

// Null if this user may not read the board, or it does not tell all that is so now.
kj::Maybe<kj::Vector<VmState>> fromBoard(Invocation& run) {
  auto opened = host::BoardReader::open(run.paths.board);
  if (!opened.is<kj::Own<host::BoardReader>>()) return nullptr;
  auto now = run.world.now();
  auto snapshot = opened.get<kj::Own<host::BoardReader>>()->snapshot(now);
  if (snapshot.writer != host::BoardWriterState::ALIVE || snapshot.unreadable > 0) return nullptr;
  kj::Vector<VmState> states(snapshot.vms.size());
  for (auto& vm : snapshot.vms) states.add(stateOf(vm, now));
  return states;
}

[[noreturn]] void failUnknown(kj::StringPtr name, kj::ArrayPtr<const VmState> known) {
  auto names = KJ_MAP(state, known) {
    return state.name.asPtr();
  };
  fail(client::FailureKind::INVALID, kj::str(name, ": unknown VM", policy::didYouMean(name, names)));
}

kj::Vector<VmState> pick(kj::Vector<VmState> all, kj::ArrayPtr<const kj::String> names) {
  kj::Vector<VmState> picked;
  for (auto& name : names) {
    auto found = std::find_if(all.begin(), all.end(), [&](const VmState& state) { return state.name == name; });
    if (found == all.end()) failUnknown(name, all);
    picked.add(kj::mv(*found));
    found->name = kj::str(name);
  }
  return picked;
}

}  // namespace

kj::Vector<VmState> readStates(Invocation& run, kj::ArrayPtr<const kj::String> names) {
  kj::Vector<VmState> states;
  KJ_IF_MAYBE (board, fromBoard(run)) {
    states = kj::mv(*board);
  } else {
    states = fromControl(run, names);
  }
  if (names.size() > 0) return pick(kj::mv(states), names);
  std::sort(states.begin(), states.end(), [](const VmState& a, const VmState& b) { return a.name < b.name; });
  return states;
}

}  // namespace postern::cli
