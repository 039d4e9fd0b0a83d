// Package share holds the words that the gateway's packages have in common: the nouns of file sharing (an identity, a
// conversation, a hosted file, a signed URL, a record of an upload) and the named conditions under which something fails.
//
// It has no behaviour of its own, imports nothing of ours, and knows neither gRPC nor HTTP nor WebSockets.
package share
