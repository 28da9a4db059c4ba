#pragma once
// ScrapeServer: GET /metrics over HTTP, on a listening socket of this machine.
//
// HTTP itself is kj-http's; what this adds are bounds, so that a scraper that is slow, broken or hostile costs posternd
// what they say and no more, and other scrapers wait while it lasts:
//  - MAX_SCRAPERS connections; more wait in the kernel's queue. They are accepted at SCRAPES_PER_SECOND after a burst;
//  - one request a connection, which is over after SCRAPE_DEADLINE: connecting, asking and reading together;
//  - the header of a request has at most 128 KiB (kj-http's bound), and no request has a body that is read;
//  - a page is made at most once in PAGE_LASTS, and its text is shared by those who read it meanwhile.
// A request with another method or path, or with none that is HTTP, gets an answer with a fixed text.
// One loop.

#include <kj/async-io.h>
#include <kj/compat/http.h>
#include <kj/function.h>
#include <kj/refcount.h>

#include "host/daemon/call-bucket.h"
#include "transport/service/local-address.h"

namespace postern::host {

constexpr unsigned MAX_SCRAPERS = 8;
constexpr unsigned SCRAPES_PER_SECOND = 20;
constexpr unsigned SCRAPE_BURST = 40;
constexpr auto SCRAPE_DEADLINE = 10 * kj::SECONDS;
constexpr auto PAGE_LASTS = 250 * kj::MILLISECONDS;

class ScrapeServer final : private kj::HttpService,
                           private kj::HttpServerCallbacks,
                           private kj::HttpServerErrorHandler,
                           private kj::TaskSet::ErrorHandler {
 public:
  // `listening`: bound and listening, not blocking. `page` makes what is served. `io` outlives this.
  ScrapeServer(kj::AsyncIoContext& io, kj::AutoCloseFd listening, kj::Function<kj::String()> page);
  ~ScrapeServer() noexcept(false);
  KJ_DISALLOW_COPY(ScrapeServer);

 private:
  struct Page final : public kj::Refcounted {
    const kj::String text;
    const kj::TimePoint until;
    Page(kj::String text, kj::TimePoint until) : text(kj::mv(text)), until(until) {}
  };

  kj::LowLevelAsyncIoProvider& provider;
  kj::Timer& timer;
  kj::AutoCloseFd listening;
  kj::UnixEventPort::FdObserver observer;
  kj::Function<kj::String()> makePage;
  kj::Maybe<kj::Own<Page>> lastPage;
  CallBucket bucket;
  unsigned scrapers = 0;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> room;  // who waits for fewer than MAX_SCRAPERS
  const kj::HttpHeaderTable headers;
  kj::HttpServer http;
  kj::TaskSet tasks;
  kj::Promise<void> accepting;

  kj::Promise<void> acceptAll();
  kj::Promise<void> acceptNext();
  kj::Promise<void> whenRoom();
  void serve(kj::AutoCloseFd socket);
  void leave();
  kj::Own<Page> page();
  static kj::Promise<void> refuse(Response& response, const kj::HttpHeaderTable& table, kj::uint status);

  // kj::HttpService.
  kj::Promise<void> request(kj::HttpMethod method, kj::StringPtr url, const kj::HttpHeaders& headers,
                            kj::AsyncInputStream& body, Response& response) override;
  // kj::HttpServerCallbacks: after each answer.
  bool shouldClose() override { return true; }
  // kj::HttpServerErrorHandler.
  kj::Promise<void> handleClientProtocolError(kj::HttpHeaders::ProtocolError error, Response& response) override;
  kj::Promise<void> handleApplicationError(kj::Exception exception, kj::Maybe<Response&> response) override;
  kj::Promise<void> handleNoResponse(Response& response) override;

  void taskFailed(kj::Exception&& exception) override;
};

// A listening socket there; of a Unix socket the file has mode 0660 and that group. Or why there is none, for a person.
kj::OneOf<kj::AutoCloseFd, kj::String> listenForScrapers(const LocalAddress& address, kj::Maybe<gid_t> group);

}  // namespace postern::host
