// Package wire checks the frames that lpfileshare and its sandbox send on a LivePerson socket, and the bodies of the Connector API
// and its webhooks, against JSON Schemas.
//
// The schemas in the folder schemas are strict where those that LivePerson publishes are loose: what the server sends has every
// required member and no undocumented one, and an answer must match the type of the request that it names. They were written from
// LivePerson's documentation, not from the code. Each file describes one kind of frame:
//
//	{consumer|brand}.request.{type}.json         sent by the server
//	{consumer|brand}.response.{answer}.json      sent by the sandbox; see answers for the answer to each request
//	{consumer|brand}.notification.{type}.json    sent by the sandbox
//	connector.request.{type or endpoint}.json    the body of a request to the Connector API
//	connector.response.{answer or endpoint}.json the body of its answer; see sends for the answer to each request
//	connector.notification.{type}.json           the body of a webhook
//
// The type is without the prefix ".ams." or "." of the brand dialect, and for a publish it is followed by the kind of the event.
// defs.json has the common definitions. Where the Connector API is the same as a consumer's socket only the consumer's schema
// exists.
//
// A package whose tests start sandboxes has a Suite. Each sandbox has a Tap of it, which its OnFrame and OnExchange call. A test
// binary fails if no frame was checked. Scripts start the server with --sandbox-frames and check the written frames with the command
// check-frames. TestSuites_CoverEverySandbox finds packages and scripts that do neither.
//
// Other clients have their own form of frames, which the sandbox accepts or refuses. On a sandbox that such a client uses, call
// CheckForeign instead of Check, and CheckForeignExchange instead of CheckExchange. They check only what the sandbox sends; of the
// client's frames they record which answer is expected. Frames that are invalid on purpose are exempt: the sandbox's garbage, which
// Spoiled recognizes, and those that a test in test/faults changes.
//
// A Recorder writes the same frames to a file for the command check-wire, which checks them against LivePerson's schemas. The script
// test/wire/record runs the suites with a Recorder.
package wire
