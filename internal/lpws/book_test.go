package lpws

import (
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// newTestBook returns the book of a consumer "me".
func newTestBook(maxConversations int) *book {
	b := &book{}
	b.init(maxConversations, func() bool { return false }, time.Now)
	b.identify(share.Principal{Account: account, ID: "me", Role: share.RoleConsumer}, []string{"me"})
	return b
}
