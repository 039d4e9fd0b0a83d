package images

import (
	"bytes"
	"image"
	"image/jpeg"
	"io"
	"math"
	"math/bits"
	"math/rand/v2"
	"sync"
)

// A jpegWriter writes a picture as a JPEG (baseline, 4:2:0) of the best quality that fits a size. Go's encoder has neither: its Huffman
// tables are those of the standard, not of the picture, and every quality that is tried costs a whole pass over the picture.
//
// The writer finds the quality with a sample of the picture, codes the picture once, and computes Huffman tables for it.
type jpegWriter struct {
	width, height int
	planes        []plane // luma, or luma and two of colour
	profile       []byte
	sample        []sampledBlock
	ratio         float64 // blocks of the picture for each block of the sample
	adjust        float64 // the real size in relation to the sample's, as measured by coding
	last          setting // of the last coding
	symbols       []byte  // of the last coding; see sink. Its capacity never grows.
}

// A plane is one component. Its samples are a byte each.
type plane struct {
	pix           []byte
	stride        int
	width, height int
}

// A setting determines how much is lost. The size of the file grows with quality, in steps, because quantizers are integers; they are
// large if the picture was a JPEG before. It shrinks steadily with coarse.
type setting struct {
	quality float64 // 1 to 100
	coarse  float64 // the part of the blocks, spread evenly, in which coefficients of less than coarseThreshold become 0
}

// Quantized coefficients of less than a half are rounded to 0.
const (
	fineThreshold   = 0.5
	coarseThreshold = 0.6
)

// A sampledBlock is a block of the sample, transformed, with the DC coefficient of the block before it in the picture.
type sampledBlock struct {
	component int
	previous  float32
	coef      [64]float32
}

// newJPEGWriter returns a writer of img, which must be gray or 4:2:0, and must not change.
func newJPEGWriter(img image.Image, profile []byte) *jpegWriter {
	size := img.Bounds().Size()
	w := &jpegWriter{width: size.X, height: size.Y, profile: profile, adjust: 1}
	switch img := img.(type) {
	case *image.Gray:
		w.planes = []plane{{img.Pix, img.Stride, size.X, size.Y}}
	case *image.YCbCr:
		cw, ch := (size.X+1)/2, (size.Y+1)/2
		w.planes = []plane{{img.Y, img.YStride, size.X, size.Y}, {img.Cb, img.CStride, cw, ch}, {img.Cr, img.CStride, cw, ch}}
	}
	w.takeSample()
	return w
}

// unit returns the side in pixels of the units that blocks are coded in, and the number of units across and down.
func (w *jpegWriter) unit() (side, across, down int) {
	side = 8
	if len(w.planes) > 1 {
		side = 16
	}
	return side, (w.width + side - 1) / side, (w.height + side - 1) / side
}

// unitBlocks returns the number of blocks of a unit.
func (w *jpegWriter) unitBlocks() int {
	if len(w.planes) > 1 {
		return 6
	}
	return 1
}

// forUnit calls do for each block of a unit, in the order of the file.
func (w *jpegWriter) forUnit(x, y int, do func(component, x, y int)) {
	if len(w.planes) == 1 {
		do(0, 8*x, 8*y)
		return
	}
	do(0, 16*x, 16*y)
	do(0, 16*x+8, 16*y)
	do(0, 16*x, 16*y+8)
	do(0, 16*x+8, 16*y+8)
	do(1, 8*x, 8*y)
	do(2, 8*x, 8*y)
}

// sampleUnits is the maximum number of units of the sample.
const sampleUnits = 4000

// takeSample takes a random unit of each of sampleUnits parts of the picture, so that no picture can be made for the units it takes.
func (w *jpegWriter) takeSample() {
	_, across, down := w.unit()
	all := across * down
	units := min(all, sampleUnits)
	w.sample = make([]sampledBlock, 0, units*w.unitBlocks())
	for part := range units {
		first, next := part*all/units, (part+1)*all/units
		at := first + rand.IntN(next-first)
		var previous [3]float32
		if at > 0 {
			x, y := (at-1)%across, (at-1)/across
			w.forUnit(x, y, func(c, bx, by int) {
				var b [64]float32
				w.planes[c].block(&b, bx, by)
				previous[c] = mean(&b)
			})
		}
		w.forUnit(at%across, at/across, func(c, bx, by int) {
			s := sampledBlock{component: c, previous: previous[c]}
			w.planes[c].block(&s.coef, bx, by)
			transform(&s.coef)
			previous[c] = s.coef[0]
			w.sample = append(w.sample, s)
		})
	}
	w.ratio = float64(all) / float64(units)
}

// mean returns the DC coefficient of a block that has not been transformed.
func mean(b *[64]float32) (sum float32) {
	for _, v := range b {
		sum += v
	}
	return sum
}

// block reads the block at x, y, and repeats the last pixels beyond the edges.
func (p *plane) block(b *[64]float32, x, y int) {
	if x+8 <= p.width && y+8 <= p.height {
		for j := range 8 {
			row := p.pix[(y+j)*p.stride+x:][:8]
			out := b[8*j:][:8]
			for i, v := range row {
				out[i] = float32(int(v) - 128)
			}
		}
		return
	}
	for j := range 8 {
		row := p.pix[min(y+j, p.height-1)*p.stride:]
		for i := range 8 {
			b[8*j+i] = float32(int(row[min(x+i, p.width-1)]) - 128)
		}
	}
}

// transform is the discrete cosine transform of Arai, Agui and Nakajima. Its results are scaled by scales.
func transform(b *[64]float32) {
	for i := 0; i < 64; i += 8 {
		r := b[i : i+8 : i+8]
		r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7] = transform8(r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7])
	}
	for i := range 8 {
		b[i], b[i+8], b[i+16], b[i+24], b[i+32], b[i+40], b[i+48], b[i+56] =
			transform8(b[i], b[i+8], b[i+16], b[i+24], b[i+32], b[i+40], b[i+48], b[i+56])
	}
}

func transform8(a0, a1, a2, a3, a4, a5, a6, a7 float32) (b0, b1, b2, b3, b4, b5, b6, b7 float32) {
	s07, d07, s16, d16 := a0+a7, a0-a7, a1+a6, a1-a6
	s25, d25, s34, d34 := a2+a5, a2-a5, a3+a4, a3-a4
	e0, e3, e1, e2 := s07+s34, s07-s34, s16+s25, s16-s25
	z1 := (e2 + e3) * 0.707106781
	o0, o1, o2 := d34+d25, d25+d16, d16+d07
	z5 := (o0 - o2) * 0.382683433
	z2, z4, z3 := 0.541196100*o0+z5, 1.306562965*o2+z5, o1*0.707106781
	z11, z13 := d07+z3, d07-z3
	return e0 + e1, z11 + z4, e3 + z1, z13 - z2, e0 - e1, z13 + z2, e3 - z1, z11 - z4
}

// zigzag is the order of coefficients in a file.
var zigzag = [64]int{
	0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
}

// The quantization tables of the standard (Annex K), by rows: luma, colour.
var standardQuantizers = [2][64]int{{
	16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
	18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
}, {
	17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
	99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
}}

// quantizers returns the tables for a quality from 1 to 100, which need not be an integer, and the factors by which coefficients are
// multiplied.
func quantizers(quality float64) (tables [2][64]byte, factors [2][64]float32) {
	scale := 200 - 2*quality
	if quality < 50 {
		scale = 5000 / quality
	}
	aan := [8]float64{1, 1.387039845, 1.306562965, 1.175875602, 1, 0.785694958, 0.541196100, 0.275899379}
	for t := range 2 {
		for i, v := range standardQuantizers[t] {
			q := min(max(math.Floor((float64(v)*scale+50)/100), 1), 255)
			tables[t][i] = byte(q)
			factors[t][i] = float32(1 / (q * aan[i/8] * aan[i%8] * 8))
		}
	}
	return tables, factors
}

// round rounds to the nearest integer, for values of less than 2^20.
func round(v float32) int32 {
	const shift = 3 << 22 // the sum has no bits for a fraction
	return int32(math.Float32bits(v+shift)<<9>>9) - 1<<22
}

// A histogram counts the symbols of each Huffman table: DC and AC of luma, DC and AC of colour. extra counts the bits between symbols.
type histogram struct {
	n     [4][256]int
	extra int
}

// A sink receives the symbols of a picture. nil symbols are only counted.
type sink struct {
	histogram
	symbols []byte // each symbol, and the bits that follow it in one or two bytes
	keep    bool   // put clears it when symbols has no more capacity
	turn    uint16 // advances with each block, so that its values are spread evenly
	coarse  uint16 // blocks whose turn is below it are coarse
}

// symbolBytes is the maximum size of a kept symbol, and blockBytes that of the symbols of a block.
const (
	symbolBytes = 3
	blockBytes  = 64 * symbolBytes
)

func newSink(at setting) sink { return sink{coarse: uint16(at.coarse * math.MaxUint16)} }

func (s *sink) put(table int, symbol byte, value int32) {
	size := int(symbol & 15)
	s.n[table][symbol]++
	s.extra += size
	if s.keep = s.keep && len(s.symbols)+symbolBytes <= cap(s.symbols); !s.keep {
		return
	}
	s.symbols = append(s.symbols, symbol)
	if size > 0 {
		if value < 0 {
			value += 1<<size - 1
		}
		s.symbols = append(s.symbols, byte(value))
		if size > 8 {
			s.symbols = append(s.symbols, byte(value>>8))
		}
	}
}

// code quantizes a transformed block. It returns the quantized DC coefficient; previous is that of the block before.
func (s *sink) code(coef, factors *[64]float32, table int, previous int32) int32 {
	threshold := float32(fineThreshold)
	if s.turn += 40503; s.turn < s.coarse { // the golden section of 2^16
		threshold = coarseThreshold
	}
	dc := min(max(round(coef[0]*factors[0]), -1024), 1023)
	d := dc - previous
	s.put(table, byte(bits.Len32(uint32(max(d, -d)))), d)
	run := 0
	for _, i := range zigzag[1:] {
		scaled := coef[i] * factors[i]
		if scaled < threshold && scaled > -threshold {
			run++
			continue
		}
		for ; run > 15; run -= 16 {
			s.put(table+1, 0xf0, 0)
		}
		v := min(max(round(scaled), -1023), 1023)
		if v == 0 { // a half was rounded to even
			v = 1
		}
		s.put(table+1, byte(run<<4|bits.Len32(uint32(max(v, -v)))), v)
		run = 0
	}
	if run > 0 {
		s.put(table+1, 0, 0)
	}
	return dc
}

// estimate returns about the size in bytes with a setting.
func (w *jpegWriter) estimate(at setting) int64 {
	_, factors := quantizers(at.quality)
	s := newSink(at)
	for i := range w.sample {
		b := &w.sample[i]
		t := min(b.component, 1)
		s.code(&b.coef, &factors[t], 2*t, round(b.previous*factors[t][0]))
	}
	pixels, rest := s.size()
	return int64(pixels*w.ratio*w.adjust) + rest + w.overhead()
}

// stuffing is what the bytes 00 add that follow each FF.
const stuffing = 1.004

// size returns the size of the coded symbols, and that of their Huffman tables.
func (h *histogram) size() (pixels float64, tables int64) {
	coded := h.extra
	for t := range h.n {
		huffman := newHuffman(&h.n[t])
		coded += huffman.bits(&h.n[t])
		tables += 4 + int64(len(huffman.segment(0)))
	}
	return float64(coded) / 8 * stuffing, tables
}

// overhead returns the size of everything but the pixels and their Huffman tables.
func (w *jpegWriter) overhead() int64 {
	n := int64(len(w.planes))
	return 2 + 18 + int64(len(jpegProfile(w.profile))) + 69*min(n, 2) + 10 + 3*n + 8 + 2*n + 2 + 2
}

// best returns the best setting of a quality from low to high with which the estimate is at most most; ok is false if there is none.
func (w *jpegWriter) best(most int64, low, high float64) (_ setting, ok bool) {
	small, large := w.estimate(setting{low, 0}), w.estimate(setting{high, 0})
	switch {
	case large <= most:
		return setting{high, 0}, true
	case small > most:
		return setting{low, 0}, false
	}
	for high-low > 0.1 {
		// The size is nearly a power of the distance from the quality 100.
		part := math.Log(float64(most)/float64(small)) / math.Log(float64(large)/float64(small))
		part = math.Log(100.5-low) + part*(math.Log(100.5-high)-math.Log(100.5-low))
		middle := min(max(100.5-math.Exp(part), low+(high-low)/8), high-(high-low)/8)
		if n := w.estimate(setting{middle, 0}); n <= most {
			low, small = middle, n
		} else {
			high, large = middle, n
		}
	}
	// The next step of quality may be some percent larger. Coarse blocks make it smaller.
	if least := w.estimate(setting{high, 1}); least < most {
		return setting{high, float64(large-most) / float64(large-least)}, true
	}
	return setting{low, 0}, true
}

// A codedJPEG is a picture that has been coded with a quality.
type codedJPEG struct {
	*jpegWriter
	tables  [2][64]byte
	huffman [4]*huffman
	size    int64 // in bytes; at most a few more than written
	whole   bool  // all symbols were kept, so that it can be written
}

// code codes the picture, and corrects the estimates by the size. It keeps symbols for a file of most bytes.
func (w *jpegWriter) code(at setting, most int64) *codedJPEG {
	tables, factors := quantizers(at.quality)
	if w.symbols == nil {
		_, across, down := w.unit()
		w.symbols = make([]byte, 0, min(symbolMemory(most), int64(across*down*w.unitBlocks()*blockBytes)))
	}
	s := newSink(at)
	s.keep, s.symbols = true, w.symbols[:0]
	var previous [3]int32
	var b [64]float32
	_, across, down := w.unit()
	for y := range down {
		for x := range across {
			w.forUnit(x, y, func(c, bx, by int) {
				w.planes[c].block(&b, bx, by)
				transform(&b)
				t := min(c, 1)
				previous[c] = s.code(&b, &factors[t], 2*t, previous[c])
			})
		}
	}
	w.last, w.symbols = at, s.symbols
	c := &codedJPEG{jpegWriter: w, tables: tables, whole: s.keep}
	for t := range s.n {
		c.huffman[t] = newHuffman(&s.n[t])
	}
	pixels, rest := s.size()
	c.size = int64(pixels) + rest + w.overhead()
	w.adjust *= float64(c.size) / float64(w.estimate(at))
	return c
}

// write writes the file, which must be whole.
func (c *codedJPEG) write(w io.Writer) error {
	out := []byte{0xff, soi}
	out = appendSegment(out, app0, []byte("JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"))
	out = append(out, jpegProfile(c.profile)...)
	kinds := min(len(c.planes), 2)
	for t := range kinds {
		table := []byte{byte(t)}
		for _, i := range zigzag {
			table = append(table, c.tables[t][i])
		}
		out = appendSegment(out, dqt, table)
	}
	frame := []byte{8, byte(c.height >> 8), byte(c.height), byte(c.width >> 8), byte(c.width), byte(len(c.planes))}
	scan := []byte{byte(len(c.planes))}
	for i := range c.planes {
		sampling, t := byte(0x11), byte(min(i, 1))
		if i == 0 && len(c.planes) > 1 {
			sampling = 0x22
		}
		frame = append(frame, byte(i+1), sampling, t)
		scan = append(scan, byte(i+1), t<<4|t)
	}
	out = appendSegment(out, sof0, frame)
	for t := range 2 * kinds {
		out = appendSegment(out, dht, c.huffman[t].segment(byte(t&1<<4|t>>1)))
	}
	out = appendSegment(out, sos, append(scan, 0, 63, 0))
	b := bitWriter{w: w, out: out}
	c.writePixels(&b)
	return b.end()
}

// writePixels writes the coded symbols.
func (c *codedJPEG) writePixels(b *bitWriter) {
	_, across, down := c.unit()
	symbols := c.symbols
	next := func(h *huffman) byte {
		symbol := symbols[0]
		symbols = symbols[1:]
		value, size := uint32(0), uint(symbol&15)
		if size > 0 {
			value, symbols = uint32(symbols[0]), symbols[1:]
		}
		if size > 8 {
			value, symbols = value|uint32(symbols[0])<<8, symbols[1:]
		}
		b.put(h.codes[symbol]<<size|value, h.sizes[symbol]+byte(size))
		return symbol
	}
	for range across * down {
		c.forUnit(0, 0, func(component, _, _ int) {
			t := 2 * min(component, 1)
			next(c.huffman[t])
			for k := 1; k < 64; k++ {
				symbol := next(c.huffman[t+1])
				if symbol == 0 {
					break
				}
				k += int(symbol >> 4)
			}
		})
	}
}

// A bitWriter writes bits, and 00 after each byte FF. It keeps its first error.
type bitWriter struct {
	w    io.Writer
	out  []byte
	acc  uint64
	have uint
	err  error
}

func (b *bitWriter) put(code uint32, size byte) {
	b.acc, b.have = b.acc<<size|uint64(code), b.have+uint(size)
	for b.have >= 8 {
		b.have -= 8
		v := byte(b.acc >> b.have)
		b.out = append(b.out, v)
		if v == 0xff {
			b.out = append(b.out, 0)
		}
	}
	if len(b.out) >= 32<<10 {
		b.flush()
	}
}

func (b *bitWriter) flush() {
	if b.err == nil {
		_, b.err = b.w.Write(b.out)
	}
	b.out = b.out[:0]
}

func (b *bitWriter) end() error {
	if b.have > 0 {
		b.put(1<<(8-b.have)-1, byte(8-b.have))
	}
	b.out = append(b.out, 0xff, eoi)
	b.flush()
	return b.err
}

// A huffman is a Huffman code for the symbols of a histogram.
type huffman struct {
	sizes  [256]byte
	codes  [256]uint32
	counts [17]byte // of codes of each size
	values []byte   // symbols, in the order of their codes
}

// newHuffman returns the best code for the symbols that n counts, as Annex K.2 computes it: no code has more than 16 bits, and none
// consists of ones.
func newHuffman(n *[256]int) *huffman {
	var freq [257]int
	var size [257]int
	var others [257]int
	copy(freq[:], n[:])
	freq[256] = 1 // reserves the code of ones
	for i := range others {
		others[i] = -1
	}
	for {
		a, b := -1, -1 // the two rarest
		for i, f := range freq {
			switch {
			case f == 0:
			case a < 0 || f <= freq[a]:
				a, b = i, a
			case b < 0 || f <= freq[b]:
				b = i
			}
		}
		if b < 0 {
			break
		}
		freq[a], freq[b] = freq[a]+freq[b], 0
		for size[a]++; others[a] >= 0; size[a]++ {
			a = others[a]
		}
		others[a] = b
		for size[b]++; others[b] >= 0; size[b]++ {
			b = others[b]
		}
	}
	return huffmanOfSizes(&size)
}

func huffmanOfSizes(size *[257]int) *huffman {
	var counts [258]int
	for _, s := range size {
		counts[s]++
	}
	counts[0] = 0
	for i := 257; i > 16; i-- {
		for counts[i] > 0 { // two codes become one shorter one, and one of less bits two
			j := i - 2
			for counts[j] == 0 {
				j--
			}
			counts[i] -= 2
			counts[i-1]++
			counts[j+1] += 2
			counts[j]--
		}
	}
	last := 16
	for last > 0 && counts[last] == 0 {
		last--
	}
	counts[last]-- // the reserved one
	h := &huffman{}
	for s := 1; s < len(counts); s++ {
		for i, v := range size[:256] {
			if v == s {
				h.values = append(h.values, byte(i))
			}
		}
	}
	code, at := uint32(0), 0
	for s := 1; s <= 16; s++ {
		h.counts[s] = byte(counts[s])
		for range counts[s] {
			h.codes[h.values[at]], h.sizes[h.values[at]] = code, byte(s)
			code++
			at++
		}
		code <<= 1
	}
	return h
}

// bits returns the number of bits of the symbols that n counts.
func (h *huffman) bits(n *[256]int) (sum int) {
	for i, f := range n {
		sum += f * int(h.sizes[i])
	}
	return sum
}

// segment returns the data of a segment DHT.
func (h *huffman) segment(class byte) []byte {
	return append(append([]byte{class}, h.counts[1:]...), h.values...)
}

// standardHuffman returns the data of a segment DHT with the tables of the standard, which Go's encoder writes.
var standardHuffman = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	_ = jpeg.Encode(&b, image.NewRGBA(image.Rect(0, 0, 1, 1)), nil) // into memory
	file := b.Bytes()
	at := bytes.Index(file, []byte{0xff, dht})
	return file[at+4 : at+2+int(file[at+2])<<8+int(file[at+3])]
})
