// Package share defines what the server's packages have in common: the nouns of file sharing (an identity, a conversation, a hosted
// file, a signed URL, a record of an upload), the kinds of errors and their properties, the table of file types, and the rules for
// account ids, tokens and storage paths.
//
// It imports no other package of this module, and does not depend on gRPC, HTTP or WebSockets.
package share
