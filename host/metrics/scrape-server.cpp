#include "host/metrics/scrape-server.h"

#include <errno.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/log/log.h"
#include "host/metrics/exposition.h"
#include "transport/listener.h"

namespace postern::host {

namespace {

constexpr unsigned NOT_FOUND = 404;
constexpr unsigned METHOD_NOT_ALLOWED = 405;
constexpr unsigned BAD_REQUEST = 400;
constexpr unsigned INTERNAL = 500;

kj::StringPtr wordsOf(kj::uint status) {
  switch (status) {
    case NOT_FOUND:
      return "Not Found";
    case METHOD_NOT_ALLOWED:
      return "Method Not Allowed";
    case BAD_REQUEST:
      return "Bad Request";
  }
  return "Internal Server Error";
}

// The settings of the HTTP server. A header that does not come is also ended by SCRAPE_DEADLINE.
kj::HttpServerSettings settingsFor(kj::HttpServerErrorHandler& errors, kj::HttpServerCallbacks& callbacks) {
  kj::HttpServerSettings settings;
  settings.headerTimeout = SCRAPE_DEADLINE / 2;
  settings.pipelineTimeout = 0 * kj::SECONDS;  // one request a connection
  settings.errorHandler = errors;
  settings.callbacks = callbacks;
  return settings;
}

}  // namespace

ScrapeServer::ScrapeServer(kj::AsyncIoContext& io, kj::AutoCloseFd listeningParam, kj::Function<kj::String()> page)
    : provider(*io.lowLevelProvider),
      timer(io.unixEventPort.getTimer()),
      listening(kj::mv(listeningParam)),
      observer(io.unixEventPort, listening, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      makePage(kj::mv(page)),
      bucket(timer, SCRAPES_PER_SECOND, SCRAPE_BURST),
      http(timer, headers, *this, settingsFor(*this, *this)),
      tasks(*this),
      accepting(kj::evalLater([this]() { return acceptAll(); }).eagerlyEvaluate([](kj::Exception&& e) {
        logEvent(LogLevel::ERROR, "metrics-failed", e.getDescription());
      })) {}

ScrapeServer::~ScrapeServer() noexcept(false) {}

// Connections --------------------------------------------------------------------------------------------------------

kj::Promise<void> ScrapeServer::acceptAll() {
  return bucket.take().then([this]() { return whenRoom(); }).then([this]() { return acceptNext(); }).then([this]() {
    return acceptAll();
  });
}

kj::Promise<void> ScrapeServer::whenRoom() {
  if (scrapers < MAX_SCRAPERS) return kj::READY_NOW;
  auto waiting = kj::newPromiseAndFulfiller<void>();
  room = kj::mv(waiting.fulfiller);
  return kj::mv(waiting.promise);
}

kj::Promise<void> ScrapeServer::acceptNext() {
  int fd = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) {
    kj::AutoCloseFd socket(fd);
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { serve(kj::mv(socket)); })) {
      // Want of memory ends this connection, and not the service.
      logEvent(LogLevel::ERROR, "metrics-failed", exception->getDescription());
    }
    return kj::READY_NOW;
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    return observer.whenBecomesReadable().then([this]() { return acceptNext(); });
  }
  // Out of descriptors or memory, or a scraper that gave up.
  return timer.afterDelay(ACCEPT_PAUSE);
}

void ScrapeServer::serve(kj::AutoCloseFd socket) {
  auto stream = provider.wrapSocketFd(
      kj::mv(socket), kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK | kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC);
  ++scrapers;
  auto served = http.listenHttp(kj::mv(stream)).exclusiveJoin(timer.afterDelay(SCRAPE_DEADLINE));
  tasks.add(served.then([]() {}, [](kj::Exception&&) {}).attach(kj::defer([this]() { leave(); })));
}

void ScrapeServer::leave() {
  --scrapers;
  KJ_IF_MAYBE (waiter, room) {
    (*waiter)->fulfill();
    room = nullptr;
  }
}

// Requests -----------------------------------------------------------------------------------------------------------

kj::Own<ScrapeServer::Page> ScrapeServer::page() {
  KJ_IF_MAYBE (last, lastPage) {
    if (timer.now() < (*last)->until) return kj::addRef(**last);
  }
  auto fresh = kj::refcounted<Page>(makePage(), timer.now() + PAGE_LASTS);
  lastPage = kj::addRef(*fresh);
  return fresh;
}

kj::Promise<void> ScrapeServer::request(kj::HttpMethod method, kj::StringPtr url, const kj::HttpHeaders&,
                                        kj::AsyncInputStream&, Response& response) {
  if (url != "/metrics" && !url.startsWith("/metrics?")) return refuse(response, headers, NOT_FOUND);
  if (method != kj::HttpMethod::GET && method != kj::HttpMethod::HEAD) {
    return refuse(response, headers, METHOD_NOT_ALLOWED);
  }
  auto current = page();
  kj::HttpHeaders answer(headers);
  answer.set(kj::HttpHeaderId::CONTENT_TYPE, EXPOSITION_CONTENT_TYPE);
  auto body = response.send(200, "OK", answer, current->text.size());
  if (method == kj::HttpMethod::HEAD) return kj::READY_NOW;
  auto written = body->write(current->text.begin(), current->text.size());
  return written.attach(kj::mv(body), kj::mv(current));
}

kj::Promise<void> ScrapeServer::refuse(Response& response, const kj::HttpHeaderTable& table, kj::uint status) {
  kj::HttpHeaders answer(table);
  answer.set(kj::HttpHeaderId::CONTENT_TYPE, "text/plain; charset=utf-8");
  if (status == METHOD_NOT_ALLOWED) answer.add("Allow", "GET, HEAD");
  auto text = kj::str(wordsOf(status), status == NOT_FOUND ? "; metrics are at /metrics\n" : "\n");
  auto body = response.send(status, wordsOf(status), answer, text.size());
  auto written = body->write(text.begin(), text.size());
  return written.attach(kj::mv(body), kj::mv(text));
}

kj::Promise<void> ScrapeServer::handleClientProtocolError(kj::HttpHeaders::ProtocolError, Response& response) {
  return refuse(response, headers, BAD_REQUEST);
}

kj::Promise<void> ScrapeServer::handleApplicationError(kj::Exception exception, kj::Maybe<Response&> response) {
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return kj::READY_NOW;
  KJ_IF_MAYBE (r, response) {
    logEvent(LogLevel::ERROR, "metrics-failed", exception.getDescription());
    return refuse(*r, headers, INTERNAL);
  }
  return kj::READY_NOW;
}

kj::Promise<void> ScrapeServer::handleNoResponse(Response& response) {
  return refuse(response, headers, INTERNAL);
}

void ScrapeServer::taskFailed(kj::Exception&& exception) {
  logEvent(LogLevel::ERROR, "internal", exception.getDescription());
}

kj::OneOf<kj::AutoCloseFd, kj::String> listenForScrapers(const LocalAddress& address, kj::Maybe<gid_t> group) {
  auto listening = listenLocal(address, 0660);
  KJ_IF_MAYBE (error, listening.tryGet<TransportError>())
    return kj::str("cannot listen on ", address, ": ", error->text);
  KJ_IF_MAYBE (path, address.tryGet<UnixAddress>()) {
    KJ_IF_MAYBE (g, group) {
      if (chown(path->path.cStr(), static_cast<uid_t>(-1), *g) != 0) {
        int error = errno;
        listening.get<kj::AutoCloseFd>() = nullptr;
        removeLocal(address);
        return kj::str("cannot give ", address, " to its group: ", errorWords(error));
      }
    }
  }
  return kj::mv(listening.get<kj::AutoCloseFd>());
}

}  // namespace postern::host
