// Package lpws speaks LivePerson's messaging protocol: JSON frames over a WebSocket, in the dialect of consumers
// (".../messaging/consumer?v=3") and in that of agents and bots (".../messaging/brand/{bearer}?v=2.1").
//
// A [Pool] keeps one socket per credential, however many callers share it. [Pool.Session] hands out a [Session]: LivePerson as
// that caller sees it. It asks for signed URLs, publishes messages, and knows the conversations and the files in them. A
// [Watch] is files as they come, in order, without gap or repeat, over lost connections too.
//
// A credential proves nothing by itself. It counts as accepted when LivePerson has upgraded its socket, has answered the first
// request on it with success, and has told its conversations; only then is a token read for who it is of.
//
// The package moves no file bytes, knows neither gRPC nor the store, remembers nothing on disk, and never renews a caller's credential:
// one that ends takes its session with it. Only an identity for which the server vouches itself gets another token (held.go), from
// [Config].Token. Its errors are [*share.Error], or the caller's own context's; no error and no line
// of its log holds a token, a bearer, a signed URL or a socket's URL.
//
// Who gets a Session releases it, who gets a Watch closes it, who makes a Pool closes it; Pool.Close waits for every goroutine.
//
// Files: pool.go (who shares what), session.go (a session's life: open, lose, reopen, end), calls.go (what callers may ask),
// conn.go (one socket), frames.go and requests.go (what is on the wire), consumer.go and brand.go (the dialects),
// conversations.go, events.go and watch.go (what is known), errors.go and token.go.
package lpws
