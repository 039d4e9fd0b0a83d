package images

import (
	"encoding/binary"
	"image"
	"image/color"
	"math"
	"sync"
)

// A conversion turns the RGB values of an image into sRGB, which is what viewers assume of an image without a profile.
type conversion struct {
	curves [3]curve
	matrix matrix // of linear light, to linear sRGB
}

// A curve turns a value from 0 to 1 into linear light.
type curve func(float64) float64

type matrix [3][3]float64

func (m matrix) mul(n matrix) (p matrix) {
	for i := range 3 {
		for j := range 3 {
			for k := range 3 {
				p[i][j] += m[i][k] * n[k][j]
			}
		}
	}
	return p
}

func (m matrix) apply(v [3]float64) (p [3]float64) {
	for i := range 3 {
		p[i] = m[i][0]*v[0] + m[i][1]*v[1] + m[i][2]*v[2]
	}
	return p
}

func (m matrix) inverse() (matrix, bool) {
	cofactor := func(i, j int) float64 {
		a, b, c, d := (i+1)%3, (i+2)%3, (j+1)%3, (j+2)%3
		return m[a][c]*m[b][d] - m[a][d]*m[b][c]
	}
	det := m[0][0]*cofactor(0, 0) + m[0][1]*cofactor(0, 1) + m[0][2]*cofactor(0, 2)
	if math.Abs(det) < 1e-9 {
		return m, false
	}
	var p matrix
	for i := range 3 {
		for j := range 3 {
			p[i][j] = cofactor(j, i) / det
		}
	}
	return p, true
}

// fromD50 turns XYZ with the white of colour profiles (D50) into linear sRGB.
var fromD50 = matrix{{3.1338561, -1.6168667, -0.4906146}, {-0.9787684, 1.9161415, 0.0334540}, {0.0719453, -0.2289914, 1.4052427}}

// newConversion returns nil if the conversion would not change colours visibly. The values of curves and toLinear need not be finite.
func newConversion(curves [3]curve, toLinear matrix) *conversion {
	c := &conversion{}
	for i := range 3 {
		c.curves[i] = func(v float64) float64 { return finite(curves[i](v)) }
		for j := range 3 {
			c.matrix[i][j] = finite(toLinear[i][j])
		}
	}
	for _, rgb := range [][3]float64{{1, 1, 1}, {.5, .5, .5}, {.1, .1, .1}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {.2, .5, .8}, {.8, .5, .2}} {
		out := c.value(rgb)
		for i := range 3 {
			if math.Abs(out[i]-rgb[i]) > 0.015 {
				return c
			}
		}
	}
	return nil
}

// finite returns v, or the nearest value with which sums of products are finite in a float32; 0 if v is not a number.
func finite(v float64) float64 {
	const most = 1 << 20
	if math.IsNaN(v) {
		return 0
	}
	return min(max(v, -most), most)
}

func (c *conversion) value(rgb [3]float64) [3]float64 {
	for i := range 3 {
		rgb[i] = c.curves[i](rgb[i])
	}
	rgb = c.matrix.apply(rgb)
	for i := range 3 {
		rgb[i] = sRGBEncode(rgb[i])
	}
	return rgb
}

func sRGBEncode(v float64) float64 {
	v = min(max(v, 0), 1)
	if v <= 0.0031308 {
		return 12.92 * v
	}
	return 1.055*math.Pow(v, 1/2.4) - 0.055
}

func sRGBDecode(v float64) float64 {
	if v <= 0.04045 {
		return v / 12.92
	}
	return math.Pow((v+0.055)/1.055, 2.4)
}

func gamma(g float64) curve { return func(v float64) float64 { return math.Pow(max(v, 0), g) } }

// encodedSteps is the number of steps of linear light whose sRGB values are in a table: a fifth of one of 255 at black.
const encodedSteps = 1 << 14

var encodedTable = sync.OnceValue(func() *[encodedSteps + 1]byte {
	var t [encodedSteps + 1]byte
	for i := range t {
		t[i] = byte(sRGBEncode(float64(i)/encodedSteps)*255 + 0.5)
	}
	return &t
})

// A converter converts values from 0 to size-1 by tables.
type converter struct {
	linear  [3][]float32
	matrix  [3][3]float32
	encoded *[encodedSteps + 1]byte
}

func (c *conversion) converter(size int) *converter {
	p := &converter{encoded: encodedTable()}
	for i := range 3 {
		p.linear[i] = make([]float32, size)
		for v := range size {
			p.linear[i][v] = float32(c.curves[i](float64(v) / float64(size-1)))
		}
		for j := range 3 {
			p.matrix[i][j] = float32(c.matrix[i][j])
		}
	}
	return p
}

func (p *converter) rgb(r, g, b int) (byte, byte, byte) {
	x, y, z := p.linear[0][r], p.linear[1][g], p.linear[2][b]
	encode := func(m *[3]float32) byte {
		v := m[0]*x + m[1]*y + m[2]*z
		return p.encoded[int(min(max(v, 0), 1)*encodedSteps+0.5)]
	}
	return encode(&p.matrix[0]), encode(&p.matrix[1]), encode(&p.matrix[2])
}

// toSRGB returns img in sRGB. It may change img. Images of 8 bits keep their type, and their pixels with premultiplied alpha must be
// opaque; those of 16 bits become NRGBA.
func (c *conversion) toSRGB(img image.Image) image.Image {
	switch img := img.(type) {
	case *image.Gray:
		p := c.converter(256)
		for i, v := range img.Pix {
			img.Pix[i], _, _ = p.rgb(int(v), int(v), int(v))
		}
	case *image.RGBA:
		c.pixels(img.Pix)
	case *image.NRGBA:
		c.pixels(img.Pix)
	case *image.Paletted:
		p := c.converter(256)
		for i, v := range img.Palette {
			n := color.NRGBAModel.Convert(v).(color.NRGBA)
			n.R, n.G, n.B = p.rgb(int(n.R), int(n.G), int(n.B))
			img.Palette[i] = n
		}
	case *image.Gray16, *image.RGBA64, *image.NRGBA64:
		return c.deep(img)
	}
	return img
}

func (c *conversion) pixels(pix []byte) {
	p := c.converter(256)
	for i := 0; i+4 <= len(pix); i += 4 {
		pix[i], pix[i+1], pix[i+2] = p.rgb(int(pix[i]), int(pix[i+1]), int(pix[i+2]))
	}
}

func (c *conversion) deep(img image.Image) *image.NRGBA {
	b := img.Bounds()
	out := image.NewNRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	p := c.converter(1 << 16)
	for y := range b.Dy() {
		row := out.Pix[y*out.Stride:]
		for x := range b.Dx() {
			var v color.NRGBA64
			switch img := img.(type) {
			case *image.NRGBA64:
				v = img.NRGBA64At(b.Min.X+x, b.Min.Y+y)
			case *image.Gray16:
				g := img.Gray16At(b.Min.X+x, b.Min.Y+y).Y
				v = color.NRGBA64{R: g, G: g, B: g, A: 0xffff}
			case *image.RGBA64:
				v = color.NRGBA64(img.RGBA64At(b.Min.X+x, b.Min.Y+y))
			}
			row[4*x], row[4*x+1], row[4*x+2] = p.rgb(int(v.R), int(v.G), int(v.B))
			row[4*x+3] = byte(v.A >> 8)
		}
	}
	return out
}

// profileConversion returns the conversion of a colour profile (ICC) that consists of curves and a matrix, as those of displays and
// cameras do. For any other profile, and for sRGB, it returns nil.
func profileConversion(icc []byte) *conversion {
	if len(icc) < 132 {
		return nil
	}
	tag := func(name string) []byte {
		for i := range min(int(binary.BigEndian.Uint32(icc[128:])), 100) {
			at := 132 + 12*i
			if at+12 > len(icc) {
				return nil
			}
			if string(icc[at:at+4]) != name {
				continue
			}
			off, size := int64(binary.BigEndian.Uint32(icc[at+4:])), int64(binary.BigEndian.Uint32(icc[at+8:]))
			if off+size > int64(len(icc)) {
				return nil
			}
			return icc[off : off+size]
		}
		return nil
	}
	if string(icc[16:20]) == "GRAY" {
		k := profileCurve(tag("kTRC"))
		if k == nil {
			return nil
		}
		return newConversion([3]curve{k, k, k}, matrix{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}})
	}
	var curves [3]curve
	var xyz matrix
	for i, name := range []string{"r", "g", "b"} {
		curves[i] = profileCurve(tag(name + "TRC"))
		point := tag(name + "XYZ")
		if curves[i] == nil || len(point) < 20 || string(icc[16:20]) != "RGB " {
			return nil
		}
		for j := range 3 {
			xyz[j][i] = fixed(point[8+4*j:])
		}
	}
	return newConversion(curves, fromD50.mul(xyz))
}

// fixed reads an s15Fixed16Number.
func fixed(b []byte) float64 { return float64(int32(binary.BigEndian.Uint32(b))) / (1 << 16) }

// profileCurve parses a curve of a colour profile: a table, or parameters. nil: it is damaged.
func profileCurve(b []byte) curve {
	switch {
	case len(b) >= 12 && string(b[:4]) == "curv":
		n := int(min(binary.BigEndian.Uint32(b[8:]), 1<<16))
		switch {
		case len(b) < 12+2*n:
			return nil
		case n == 0:
			return gamma(1)
		case n == 1:
			return parametric(0, [7]float64{float64(binary.BigEndian.Uint16(b[12:])) / 256})
		}
		return func(v float64) float64 {
			v = min(max(v, 0), 1) * float64(n-1)
			i := min(int(v), n-2)
			low, high := float64(binary.BigEndian.Uint16(b[12+2*i:])), float64(binary.BigEndian.Uint16(b[14+2*i:]))
			return (low + (high-low)*(v-float64(i))) / 0xffff
		}
	case len(b) >= 12 && string(b[:4]) == "para":
		kind := binary.BigEndian.Uint16(b[8:])
		counts := []int{1, 3, 4, 5, 7}
		if int(kind) >= len(counts) || len(b) < 12+4*counts[kind] {
			return nil
		}
		var p [7]float64 // g, a, b, c, d, e, f
		for i := range counts[kind] {
			p[i] = fixed(b[12+4*i:])
		}
		return parametric(int(kind), p)
	}
	return nil
}

// parametric returns the parametricCurveType of a kind: a power, and for small values a line. nil: its power is not positive.
func parametric(kind int, p [7]float64) curve {
	g, a, b, c, d, e, f := p[0], p[1], p[2], p[3], p[4], p[5], p[6]
	if g <= 0 {
		return nil
	}
	power := func(v float64) float64 { return math.Pow(max(a*v+b, 0), g) }
	switch kind {
	case 0:
		return gamma(g)
	case 1, 2: // up to -b/a a constant, c
		return func(v float64) float64 {
			if a*v+b < 0 {
				return c
			}
			return power(v) + c
		}
	}
	return func(v float64) float64 { // e and f are 0 in kind 3
		if v < d {
			return c*v + f
		}
		return power(v) + e
	}
}

// primaries are the chromaticities, x and y, of white, red, green and blue.
type primaries [8]float64

// toLinearSRGB returns the matrix from linear light of p to linear sRGB.
func (p primaries) toLinearSRGB() (matrix, bool) {
	var m matrix
	for i := range 3 {
		x, y := p[2+2*i], p[3+2*i]
		if y <= 0 || p[1] <= 0 {
			return m, false
		}
		m[0][i], m[1][i], m[2][i] = x/y, 1, (1-x-y)/y
	}
	inv, ok := m.inverse()
	if !ok {
		return m, false
	}
	white := [3]float64{p[0] / p[1], 1, (1 - p[0] - p[1]) / p[1]}
	s := inv.apply(white)
	for i := range 3 {
		for j := range 3 {
			m[i][j] *= s[j]
		}
	}
	// Bradford: the white of the image becomes the white of colour profiles.
	bradford := matrix{{0.8951, 0.2664, -0.1614}, {-0.7502, 1.7135, 0.0367}, {0.0389, -0.0685, 1.0296}}
	back, _ := bradford.inverse()
	from, to := bradford.apply(white), bradford.apply([3]float64{0.9642, 1, 0.8249})
	var adapt matrix
	for i := range 3 {
		if from[i] <= 0 {
			return m, false
		}
		adapt[i][i] = to[i] / from[i]
	}
	return fromD50.mul(back.mul(adapt).mul(bradford)).mul(m), true
}

var sRGBPrimaries = primaries{.3127, .3290, .64, .33, .30, .60, .15, .06}

// pngColor is what a PNG says of its colours besides a colour profile.
type pngColor struct {
	gamma     float64 // 0: none; 1: values are linear
	primaries *primaries
	sRGB      bool
	coding    []byte // cICP: primaries, transfer, matrix, full range
}

// pngNoted are the chunks that the carver looks into, with the largest size that it does so for.
var pngNoted = map[string]int64{"acTL": 8, "gAMA": 4, "cHRM": 32, "sRGB": 1, "cICP": 4, "iCCP": maxPackedProfile}

// note records a chunk, and a colour profile in profile.
func (c *pngColor) note(kind string, data []byte, profile *profileParts) {
	switch {
	case kind == "gAMA" && len(data) == 4:
		c.gamma = float64(binary.BigEndian.Uint32(data)) / 100_000
	case kind == "cHRM" && len(data) == 32:
		c.primaries = new(primaries)
		for i := range c.primaries {
			c.primaries[i] = float64(binary.BigEndian.Uint32(data[4*i:])) / 100_000
		}
	case kind == "sRGB":
		c.sRGB = true
	case kind == "cICP" && len(data) == 4:
		c.coding = data
	case kind == "iCCP":
		profile.addPNG(data)
	}
}

// The codes of cICP (ITU-T H.273) that files contain. Displays show the curve of television (1, 6, 14, 15) as that of sRGB.
var (
	codedPrimaries = map[byte]primaries{
		1: sRGBPrimaries,
		5: {.3127, .3290, .64, .33, .29, .60, .15, .06}, 6: {.3127, .3290, .63, .34, .31, .595, .155, .07},
		9: {.3127, .3290, .708, .292, .170, .797, .131, .046}, 12: {.3127, .3290, .680, .320, .265, .690, .150, .060},
	}
	codedTransfers = map[byte]curve{
		1: sRGBDecode, 4: gamma(2.2), 5: gamma(2.8), 6: sRGBDecode, 8: gamma(1), 13: sRGBDecode, 14: sRGBDecode, 15: sRGBDecode,
	}
)

// hdr reports whether values mean more light than a display of standard range has (PQ, HLG).
func (c *pngColor) hdr() bool { return len(c.coding) == 4 && (c.coding[1] == 16 || c.coding[1] == 18) }

// conversion returns the conversion to sRGB of a PNG without a colour profile, or whose cICP replaces it; nil: none is necessary.
// known is false if the PNG says something that is not understood.
func (c *pngColor) conversion() (_ *conversion, known bool) {
	p, transfer := sRGBPrimaries, curve(sRGBDecode)
	switch {
	case c.coding != nil:
		var ok1, ok2 bool
		p, ok1 = codedPrimaries[c.coding[0]]
		transfer, ok2 = codedTransfers[c.coding[1]]
		if !ok1 || !ok2 || c.coding[2] != 0 || c.coding[3] != 1 {
			return nil, false
		}
	case c.sRGB:
		return nil, true
	default:
		if c.gamma > 0 {
			transfer = gamma(1 / c.gamma)
		}
		if c.primaries != nil {
			p = *c.primaries
		}
	}
	m, ok := p.toLinearSRGB()
	if !ok {
		return nil, false
	}
	return newConversion([3]curve{transfer, transfer, transfer}, m), true
}

// toSRGB returns the conversion of the image to sRGB; nil: none is necessary or possible. profiled reports that the image has a
// usable colour profile, from which the conversion is derived.
func (a *anatomy) toSRGB() (c *conversion, profiled bool) {
	if a.png.coding == nil && len(a.profile.icc) > 0 {
		return profileConversion(a.profile.icc), true
	}
	c, _ = a.png.conversion()
	return c, false
}
