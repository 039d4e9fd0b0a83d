package feed

// maxTextBytes is how much of a frame's or a body's text an event keeps. A preview alone can be longer.
const maxTextBytes = 8 << 10

// A Frame is the data of the kind "frame": a text frame on a socket.
type Frame struct {
	// Socket identifies the socket in this run.
	Socket  int64  `json:"socket"`
	Account string `json:"account"`
	// Dialect is "consumer" or "brand".
	Dialect    string `json:"dialect"`
	FromClient bool   `json:"fromClient"`
	Text
}

// An Exchange is the data of the kind "exchange": a request to the Connector API, or a webhook.
type Exchange struct {
	Account string `json:"account"`
	// App is the id of the app install. Only webhooks have it.
	App string `json:"app,omitempty"`
	// Endpoint is "token", "consumer", "conversation", "send", or "webhook", which is a request of the sandbox.
	Endpoint string `json:"endpoint"`
	Request  Text   `json:"request"`
	// Status is 0 if there was no answer.
	Status int  `json:"status"`
	Answer Text `json:"answer"`
}

// A Store is the data of the kind "store": the beginning or the end of a request to the store.
type Store struct {
	// Request identifies the request in this run.
	Request int64  `json:"request"`
	Phase   string `json:"phase"` // "begin" or "end"
	Method  string `json:"method"`
	Path    string `json:"path"`
	// Status is that of the answer; 0 at the beginning, and at the end if none was sent.
	Status int `json:"status,omitempty"`
	// Received and Sent are the bytes of the request's and the answer's body, at the end.
	Received int64 `json:"received,omitempty"`
	Sent     int64 `json:"sent,omitempty"`
	// Milliseconds is how long the request took, at the end.
	Milliseconds float64 `json:"ms,omitempty"`
	// Fault reports whether a fault struck.
	Fault bool `json:"fault,omitempty"`
}

// A Fault is the data of the kind "fault": one that was armed, struck or was removed.
type Fault struct {
	// ID identifies the fault.
	ID int `json:"id"`
	// Change is "armed", "struck" or "removed".
	Change string `json:"change"`
	On     string `json:"on,omitempty"`
	// Struck is how many times the fault has struck, and Left how many times it will still strike; nil: until it is removed.
	Struck int  `json:"struck"`
	Left   *int `json:"left"`
}

// A Call is the data of the kind "call": a gRPC call to the server in front of the sandbox, at its beginning, when the first message of an
// upload was read, at its response header, or at its end.
type Call struct {
	// Call identifies the call in this run.
	Call   int64  `json:"call"`
	Phase  string `json:"phase"` // "begin", "spec", "header" or "end"
	Method string `json:"method"`
	// RequestID is the request id of an upload, once it is known.
	RequestID string `json:"requestId,omitempty"`
	// Conversation, Name and Size are what an upload's first message says, and Path is the path of the file in the store: of an upload
	// at its end, if it succeeds.
	Conversation string `json:"conversation,omitempty"`
	Name         string `json:"name,omitempty"`
	Size         int64  `json:"size,omitempty"`
	Path         string `json:"path,omitempty"`
	// Code and Reason are the gRPC code and the reason of an error, at the end.
	Code   string `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// A Message is the data of the kind "message": an event of a conversation that has a sequence, of any type.
type Message struct {
	Account      string `json:"account"`
	Conversation string `json:"conversation"`
	Sequence     int    `json:"sequence"`
	// Role is the sender's in the conversation.
	Role string `json:"role"`
	// Type is LivePerson's, such as "ContentEvent" or "AcceptStatusEvent", whose status is Status.
	Type   string `json:"type"`
	Status string `json:"status,omitempty"`
}

// A Text is a text that may be cut.
type Text struct {
	Text string `json:"text"`
	// Size is the length of the whole text in bytes.
	Size int `json:"size"`
}

// Cut returns the first part of a text.
func Cut(data []byte) Text {
	return Text{Text: string(data[:min(len(data), maxTextBytes)]), Size: len(data)}
}

// TextSize counts the text for the limit of the feed.
func (f Frame) TextSize() int { return len(f.Text.Text) }

// TextSize counts the texts for the limit of the feed.
func (x Exchange) TextSize() int { return len(x.Request.Text) + len(x.Answer.Text) }
