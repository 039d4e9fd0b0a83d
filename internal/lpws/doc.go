// Package lpws implements LivePerson's messaging protocol: JSON frames over a WebSocket, in the dialect of consumers
// (".../messaging/consumer?v=3") and in the dialect of agents and bots (".../messaging/brand/{bearer}?v=2.1").
//
// A [Pool] keeps one LivePerson session for each credential, shared by all callers with that credential. [Pool.Session] returns a
// [Session], the view of one caller: it requests signed URLs, publishes messages, and reads conversations and the files in them.
// A [Watch] delivers files in order as they are published, without gaps or repeats, across lost connections.
//
// A credential alone proves nothing. It is accepted when LivePerson has upgraded its WebSocket, has answered the first request
// with success, and has listed its conversations. Only then does the package read the identity from the token.
//
// The package transfers no file content, does not depend on gRPC or the store, and writes nothing to disk. It never renews a
// caller's credential: a session ends with its credential. The exception is an identity whose tokens the server obtains itself,
// from [Config].Token. Errors are [*share.Error] or the cause of the caller's context. No error and no log line contains a token, a
// bearer, a signed URL or a socket URL.
//
// Callers must Release each Session and Close each Watch and Pool. Pool.Close waits for every goroutine.
//
// Each layer calls only those below it:
//
//   - calls.go, lookup.go: the methods of Session.
//   - pool.go: the sessions of all credentials.
//   - session.go, fetch.go: one session: opening, reopening, ending, and reading the events of dialogs.
//   - opener.go, identity.go: opening a connection; tokens and logins that the server renews.
//   - transport.go: one connection.
//   - book.go, feed.go, conversations.go, watch.go: the state that frames build up. No I/O.
//   - dialect.go, consumer.go, agent.go, frames.go, requests.go, token.go, errors.go: protocol details and small types.
package lpws
