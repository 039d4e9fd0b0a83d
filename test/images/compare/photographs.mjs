// Makes photographs of 12 megapixels, as a telephone takes them, from those of Debian's package mate-backgrounds: enlarged, sharpened,
// with the noise of a sensor. Arguments: the folder of the package's photographs, the folder to write to.
import { join } from "node:path";
import sharp from "sharp";

const [from, to] = process.argv.slice(2);
const size = { width: 4000, height: 3000 };
for (const name of ["Aqua", "Dune", "Garden", "LadyBird", "Storm", "TwoWings", "Wood", "YellowFlower"]) {
  const noise = { type: "gaussian", mean: 128, sigma: 12 };
  const input = await sharp({ create: { ...size, channels: 3, background: "#808080", noise } }).png({ compressionLevel: 1 }).toBuffer();
  await sharp(join(from, name + ".jpg")).resize({ ...size, fit: "cover" }).sharpen({ sigma: 1.2 })
    .composite([{ input, blend: "soft-light" }]).jpeg({ quality: 97 }).toFile(join(to, name + ".jpg"));
}
