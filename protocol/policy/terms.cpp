#include "protocol/policy/terms.h"

#include "protocol/policy/units.h"

namespace postern::policy {

namespace {

class Terms {
 public:
  void addLimits(kj::StringPtr whose, const Limits& limits) {
    addPace(whose, limits);
    KJ_IF_MAYBE (bytes, limits.bytes) {
      if (*bytes == 0) {
        addZero(whose, "bytes");
      } else {
        add(whose, "at most ", formatSize(*bytes), " under way that the receiver has not taken yet; more waits");
      }
    }
    addCount(whose, "open", limits.open, " open at one time");
    addCount(whose, "calls", limits.callsPerHour, " begun in an hour");
  }

  void addMirror(const Mirror& mirror) {
    lines.add(kj::str("mirrored, ", mirror.copy == Mirror::Copy::FULL ? "with" : "without",
                      " its bytes, to unix:", mirror.to));
  }

  kj::Vector<kj::String> take() { return kj::mv(lines); }

 private:
  kj::Vector<kj::String> lines;

  template <typename... Parts>
  void add(kj::StringPtr whose, Parts&&... parts) {
    lines.add(kj::str("limit of ", whose, ": ", kj::fwd<Parts>(parts)...));
  }
  void addZero(kj::StringPtr whose, kj::StringPtr key) { add(whose, key, " is 0, so every one is refused"); }

  void addPace(kj::StringPtr whose, const Limits& limits) {
    KJ_IF_MAYBE (rate, limits.rate) {
      if (*rate == 0) return addZero(whose, "rate");
      kj::String burst, peak;
      KJ_IF_MAYBE (bytes, limits.burst) burst = kj::str(", ", formatSize(*bytes), " at once after a pause");
      KJ_IF_MAYBE (bytes, limits.peak) peak = kj::str(", never more than ", formatSize(*bytes), " a second");
      add(whose, formatSize(*rate), " a second", burst, peak, "; more waits");
    }
  }

  void addCount(kj::StringPtr whose, kj::StringPtr key, const kj::Maybe<uint64_t>& limit, kj::StringPtr what) {
    KJ_IF_MAYBE (count, limit) {
      if (*count == 0) return addZero(whose, key);
      add(whose, "at most ", *count, what, "; one more is refused");
    }
  }
};

}  // namespace

kj::Vector<kj::String> termsOf(const Policy& policy, const Request& request, const Decision& decision) {
  Terms terms;
  KJ_IF_MAYBE (family, familyOf(request.call)) {
    bool isLimited = *family == CallFamily::FILE || *family == CallFamily::SERVICE;
    if (!isLimited || !decision.isAllowed() || policy.document().side == Side::GUEST) return terms.take();
  }
  KJ_IF_MAYBE (rule, decision.rule) {
    terms.addLimits(kj::str("rule '", rule->id, "', for each VM"), rule->limits);
  }
  auto addPort = [&](const kj::Maybe<const Vm&>& vm) {
    KJ_IF_MAYBE (v, vm) {
      KJ_IF_MAYBE (port, policy.port(v->name)) terms.addLimits(kj::str("the port of ", v->name), port->limits);
    }
  };
  addPort(request.caller.tryGet<Vm>());
  addPort(request.target.tryGet<Vm>());
  KJ_IF_MAYBE (rule, decision.rule) {
    KJ_IF_MAYBE (mirror, rule->mirror) terms.addMirror(*mirror);
  }
  return terms.take();
}

}  // namespace postern::policy
