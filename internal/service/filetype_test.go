package service

import (
	"slices"
	"testing"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// The contract's enum and the table of file types list the same types in the same order.
func TestFileTypes_MatchContract(t *testing.T) {
	var rows, values []string
	for _, row := range share.FileTypes() {
		rows = append(rows, row.ContractName())
	}
	enum := pb.FileType(0).Descriptor().Values()
	for i := range enum.Len() {
		if v := enum.Get(i); v.Number() != 0 {
			values = append(values, string(v.Name()))
		}
	}
	if !slices.Equal(rows, values) {
		t.Errorf("the table has %q, the contract %q", rows, values)
	}
}

func TestFileTypes_Convert(t *testing.T) {
	for _, row := range share.FileTypes() {
		value := protoOf(row)
		if got, ok := fileTypeFromProto(value); !ok || got != row.Type || value == 0 {
			t.Errorf("%s becomes %s, and that %s", row.Name, value, got)
		}
		for _, spelling := range append([]string{string(row.Type)}, row.Aliases...) {
			if got := fileTypeToProto(spelling); got != value {
				t.Errorf("%q becomes %s", spelling, got)
			}
		}
	}
	for _, value := range []pb.FileType{0, -1, 1000} {
		if got, ok := fileTypeFromProto(value); ok {
			t.Errorf("%d becomes %s", value, got)
		}
	}
	if got := fileTypeToProto("IMG"); got != 0 {
		t.Errorf("an unknown spelling becomes %s", got)
	}
}

func TestAllowedTypes(t *testing.T) {
	images := []pb.FileType{pb.FileType_FILE_TYPE_JPEG, pb.FileType_FILE_TYPE_PNG, pb.FileType_FILE_TYPE_GIF}
	if got := allowedTypes(nil); !slices.Equal(got, images) {
		t.Errorf("without documents: %v", got)
	}
	if got := allowedTypes([]share.FileType{share.DOCX, share.PDF}); !slices.Equal(got, append(images, pb.FileType_FILE_TYPE_PDF, pb.FileType_FILE_TYPE_DOCX)) {
		t.Errorf("with PDF and DOCX: %v", got)
	}
}
