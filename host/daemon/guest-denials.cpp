#include "host/daemon/guest-denials.h"

namespace postern::host {

namespace {

GuestDenial copyOf(const GuestDenial& denial) {
  return {kj::str(denial.to), kj::str(denial.service), kj::str(denial.rule), denial.outcome, denial.reason};
}

}  // namespace

bool GuestDenial::operator==(const GuestDenial& other) const {
  return to == other.to && service == other.service && rule == other.rule && outcome == other.outcome &&
         reason == other.reason;
}

// T111
bool GuestDenials::isFirst(kj::TimePoint now, kj::StringPtr vm, const GuestDenial& denial, uint64_t times) {
  auto& flood = floods.findOrCreate(vm, [&]() {
    return kj::HashMap<kj::String, Flood>::Entry{kj::str(vm), Flood{now + FIRST_WINDOW, FIRST_WINDOW, {}}};
  });
  for (auto& kind : flood.kinds) {
    if (kind.denial == denial) {
      kind.repeated += times;
      return false;
    }
  }
  if (flood.kinds.size() < MAX_KINDS) {
    flood.kinds.add(Kind{copyOf(denial), times - 1});
    return true;
  }
  flood.others += times;
  return false;
}

void GuestDenials::flush(kj::TimePoint now, Record record) {
  kj::Vector<kj::String> over;
  for (auto& entry : floods) {
    auto& flood = entry.value;
    if (now < flood.until) continue;
    if (tell(entry.key, flood, record)) {
      flood.window = kj::min(flood.window * 2, LAST_WINDOW);
      flood.until = now + flood.window;
    } else {
      over.add(kj::str(entry.key));
    }
  }
  for (auto& vm : over) floods.erase(vm);
}

void GuestDenials::flush(kj::StringPtr vm, Record record) {
  KJ_IF_MAYBE (flood, floods.find(vm)) {
    tell(vm, *flood, record);
    floods.erase(vm);
  }
}

// Whether there was anything.
bool GuestDenials::tell(kj::StringPtr vm, Flood& flood, Record& record) {
  bool any = false;
  for (auto& kind : flood.kinds) {
    if (kind.repeated == 0) continue;
    record(vm, kind.denial, kind.repeated);
    kind.repeated = 0;
    any = true;
  }
  if (flood.others > 0) {
    record(vm, GuestDenial{kj::String(), kj::String(), kj::String(), "denied"_kj, "several"_kj}, flood.others);
    flood.others = 0;
    any = true;
  }
  return any;
}

}  // namespace postern::host
