// Package lpwire defines LivePerson's JSON: the bodies of requests, answers and notifications, and the meaning of error answers.
// The messaging socket (package lpws) and the Connector API with its webhooks (package connector) share them; only the envelopes differ.
//
// LivePerson asks readers to ignore unknown members and unknown values, and to accept a bare element in place of an array of one.
// The types here also treat a member of the wrong shape as absent, so that one malformed event does not lose the other events of
// its notification. Requests follow LivePerson's schemas exactly where those are correct: ids and fileSize are strings, lists are
// arrays, and a caption is always present.
package lpwire
