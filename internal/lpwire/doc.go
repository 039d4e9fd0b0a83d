// Package lpwire holds LivePerson's JSON: the bodies of requests, answers and notifications, and what refusals mean. They are the
// same over the messaging socket (package lpws), the Connector API and its webhooks (package connector), whatever envelope they come in.
//
// LivePerson's own rule for readers is to accept unknown members, to take a bare element for an array of one, and to ignore
// values that are not known. The types here go a little further: a member of the wrong shape counts as absent, so that one odd
// event does not cost the others of its notification. What is sent is written to the letter of LivePerson's schemas where they
// are right: ids and fileSize as strings, lists as arrays, a caption always.
package lpwire
