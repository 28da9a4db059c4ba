# A file of Noise test vectors in cacophony's JSON format, as JsonCodec reads it. The two public dialects differ in a few
# names; both are here. All bytes are hexadecimal, and checked by the reader, since JsonCodec's own decoding of them is
# lenient. Fields that no dialect needs for a run (pattern, dh, cipher, hash: all in the name) are left out.
@0xd5a3c1be0f6e4a27;

using Json = import "/capnp/compat/json.capnp";
using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("postern::noise::vectors");

struct File {
  vectors @0 :List(Vector);
}

struct Vector {
  # protocolName in cacophony, name in noise-c.
  protocolName @0 :Text $Json.name("protocol_name");
  name @1 :Text;

  initPrologue @2 :Text $Json.name("init_prologue");
  initEphemeral @3 :Text $Json.name("init_ephemeral");
  initStatic @4 :Text $Json.name("init_static");
  initRemoteStatic @5 :Text $Json.name("init_remote_static");
  # psks in cacophony, psk in noise-c.
  initPsks @6 :List(Text) $Json.name("init_psks");
  initPsk @7 :Text $Json.name("init_psk");

  respPrologue @8 :Text $Json.name("resp_prologue");
  respEphemeral @9 :Text $Json.name("resp_ephemeral");
  respStatic @10 :Text $Json.name("resp_static");
  respRemoteStatic @11 :Text $Json.name("resp_remote_static");
  respPsks @12 :List(Text) $Json.name("resp_psks");
  respPsk @13 :Text $Json.name("resp_psk");

  handshakeHash @14 :Text $Json.name("handshake_hash");
  messages @15 :List(Message);
}

struct Message {
  payload @0 :Text;
  ciphertext @1 :Text;
}
