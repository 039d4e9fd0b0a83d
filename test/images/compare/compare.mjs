// Compares fitting with sharp: see run. Arguments: the program compare, the limit in bytes, the folder of the photographs.
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";

const [compare, limitText, folder] = process.argv.slice(2);
const limit = Number(limitText);
sharp.cache(false);
const cpu = () => { const u = process.cpuUsage(); return (u.user + u.system) / 1000; };

// The best quality that fits, by bisection. The picture is decoded once.
async function search(file) {
  const { data, info } = await sharp(file).raw().toBuffer({ resolveWithObject: true });
  let low = 1, high = 95, best;
  const encode = (quality) => sharp(data, { raw: info }).jpeg({ quality }).toBuffer();
  best = await encode(high);
  if (best.length <= limit) return { quality: high, best };
  while (high - low > 1) {
    const quality = (low + high) >> 1, out = await encode(quality);
    if (out.length <= limit) { low = quality; best = out; } else high = quality;
  }
  return { quality: low, best };
}

const rows = [];
for (const name of readdirSync(folder).filter((n) => n.endsWith(".jpg")).sort()) {
  const path = join(folder, name), file = readFileSync(path), { width, height } = await sharp(file).metadata();
  let begun = cpu();
  const { quality, best } = await search(file);
  const took = cpu() - begun;
  begun = cpu();
  await sharp(file).jpeg({ quality }).toBuffer();
  const once = cpu() - begun;
  writeFileSync(path + ".sharp", best);
  const [bytes, ours, time] = execFileSync(compare, ["fit", limitText, path, path + ".ours"]).toString().trim().split(" ").map(Number);
  const ssim = (other) => Number(execFileSync(compare, ["ssim", path, path + other]).toString());
  const a = ssim(".sharp"), b = ssim(".ours");
  rows.push(`| ${name.replace(/\.jpg$/, "")}, ${(width * height / 1e6).toFixed(1)} MP | ${file.length.toLocaleString("en")} | ` +
    `${best.length.toLocaleString("en")}, q${quality} | ${bytes.toLocaleString("en")}, q${ours} | ${a.toFixed(4)} | ${b.toFixed(4)} | ${(b - a).toFixed(4)} | ` +
    `${(took / 1000).toFixed(2)} s (${(once / 1000).toFixed(2)} s) | ${(time / 1000).toFixed(2)} s |`);
}
console.log(`| photograph | bytes | sharp: bytes | lpfileshare: bytes | sharp: SSIM | lpfileshare: SSIM | difference | sharp: CPU (with the quality known) | lpfileshare: CPU |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
${rows.join("\n")}`);
