// Package wire checks the frames that lpfileshare and its sandbox put on a LivePerson socket, and the bodies of the Connector API
// and its webhooks, against JSON Schemas of our own.
//
// The schemas, in the folder of that name, are exact where LivePerson's published ones are loose: what the gateway sends has
// every member that is required and none that is not described, and an answer must suit the request that it names. They were
// written from LivePerson's documents, not from our code. One file describes one kind of frame:
//
//	{consumer|brand}.request.{type}.json         sent by the gateway
//	{consumer|brand}.response.{answer}.json      sent by the sandbox; see answers for which answer suits which request
//	{consumer|brand}.notification.{type}.json    sent by the sandbox
//	connector.request.{type or endpoint}.json    the body of a request to the Connector API
//	connector.response.{answer or endpoint}.json the body of its answer; see sends for which answer suits which request
//	connector.notification.{type}.json           the body of a webhook
//
// where the type has lost the ".ams." (or ".") that the brand dialect puts in front, and a publish is told by its event too.
// defs.json holds what they have in common. What the Connector API has in common with a consumer's socket is described by the
// consumer's schema only.
//
// A package whose tests start sandboxes has a Suite, and each sandbox a Tap of it: hang it on the sandbox's OnFrame and OnExchange.
// A test binary in which no frame was checked fails. Scripts have their server write the frames (--sandbox-frames), and the command
// check-frames does the same with what it wrote. TestEverySandboxIsWatched finds who does neither.
//
// Clients that are not ours write frames in their own way, which is the sandbox's to accept or refuse; on a sandbox that such a
// client uses, call CheckForeign instead of Check, and CheckForeignExchange instead of CheckExchange: they check what the sandbox
// sends, and of what the client sends only remember which answer is due. Exempt are frames that are spoiled on purpose: the sandbox's garbage, which Spoiled knows by its text, and
// what a case of test/faults spoils on its way to the socket.
//
// A Recorder keeps the same frames for the command check-wire, which holds them against LivePerson's schemas: test/wire/record runs
// the suites so.
package wire
