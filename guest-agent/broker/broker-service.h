#pragma once
// One agent's requests, from its socket to their answers. For Broker.

#include <map>

#include "guest-agent/broker/broker-wire.h"
#include "guest-agent/broker/broker.h"
#include "transport/packet-socket.h"

namespace postern::guest {

// How often an agent may write to the users' terminals.
constexpr size_t TELLS_PER_MINUTE = 6;
// Connects at one time: one, and one that is being cancelled.
constexpr size_t MAX_CONNECTS = 2;

class Broker::Service final : private kj::TaskSet::ErrorHandler {
 public:
  Service(Broker& broker, kj::AutoCloseFd socket);
  ~Service() noexcept(false);
  KJ_DISALLOW_COPY(Service);

  kj::Promise<kj::OneOf<AgentGone, AgentBrokeRule>> serve();
  void configurationChanged();

 private:
  using End = kj::OneOf<AgentGone, AgentBrokeRule>;
  struct Reply {
    Answer::Outcome outcome;
    kj::Array<kj::byte> payload = nullptr;
    bool flag = false;
    kj::Maybe<Connection> connection = nullptr;
    kj::Maybe<kj::AutoCloseFd> socket = nullptr;
  };

  // Connections to services are bounded apart: a target that takes its time holds up no probe and no power action.
  enum class Lane : uint8_t { OTHERS, SERVICES };
  struct Running {
    Lane lane;
    kj::Own<kj::PromiseFulfiller<void>> cancel;
  };

  Broker& broker;
  PacketSocket socket;
  uint64_t lastNumber = 0;
  std::map<uint64_t, Running> running;  // by number
  size_t lanes[2] = {0, 0};             // how many of each
  std::deque<Lane> unread;              // of the last answers, among them all that are not sent
  RunningOpeners openers;
  ServiceOpener services;
  size_t connects = 0;
  std::deque<kj::TimePoint> tells;
  kj::TaskSet tasks;

  kj::Maybe<AgentBrokeRule> take(kj::ArrayPtr<const kj::byte> untrusted);
  size_t inProgress(Lane lane);
  void begin(Request request);
  void answer(uint64_t number, Reply reply);
  void cancel(uint64_t number);

  kj::Promise<Reply> carryOut(Request& request);
  kj::Promise<Reply> connect();
  kj::Promise<Reply> probe(const ProbeRequest& request);
  kj::Promise<Reply> runHook(const RunHookRequest& request);
  kj::Promise<Reply> tellUsers(const TellUsersRequest& request);
  kj::Promise<Reply> openService(uint64_t number, const OpenServiceRequest& request);
  kj::Promise<Reply> openFiles(uint64_t number, const OpenFilesRequest& request);
  Reply refuseFiles(const OpenFilesRequest& request, const FilesRefusal& refusal);
  void watchOpener(uint64_t number, const OpenFilesRequest& request, const OpenerPlan& plan, kj::AutoCloseFd openerEnd,
                   kj::Promise<ChildEnd> end);
  kj::Promise<Reply> power(const PowerRequest& request);

  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::guest
