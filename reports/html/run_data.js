// Reads the data blocks of a page: embedding.py describes them.
"use strict";

const limner = {};

/** The header and arrays of a data block, whose text an element holds. */
limner.readBlock = async (text) => {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return limner.unpack(await new Response(stream).arrayBuffer());
};

/** The header and arrays of the bytes of a data block. */
limner.unpack = (buffer) => {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const types = { Uint8Array, Int32Array, Uint32Array, Float32Array, Float64Array };
  const arrays = {};
  let at = 8 * Math.ceil((4 + length) / 8);
  for (const [name, type, count] of header.arrays) {
    arrays[name] = new types[type](buffer, at, count);
    at += 8 * Math.ceil((count * types[type].BYTES_PER_ELEMENT) / 8);
  }
  return { header, arrays };
};

/** Outlines: coordinates in level-0 pixels, where each ring begins among them, and each finding among the rings. */
limner.readOutlines = (encoded, anchors, count) => {
  const xy = new Float32Array(encoded.length);
  const rings = [];
  const first = new Uint32Array(count + 1);
  let at = 0;
  let end = 0;
  const next = () => {
    let byte = encoded[at++];
    let value = byte & 127;
    for (let shift = 7; byte > 127; shift += 7) {
      byte = encoded[at++];
      value += (byte & 127) * 2 ** shift;
    }
    return value;
  };
  const step = () => {
    const value = next();
    return value % 2 ? -(value + 1) / 2 : value / 2;
  };
  for (let finding = 0; finding < count; finding++) {
    first[finding] = rings.length;
    for (let ring = next(); ring > 0; ring--) {
      rings.push(end);
      let x = anchors[2 * finding];
      let y = anchors[2 * finding + 1];
      for (let vertex = next(); vertex > 0; vertex--) {
        x += step();
        y += step();
        xy[end++] = x / 8;
        xy[end++] = y / 8;
      }
    }
  }
  first[count] = rings.length;
  rings.push(end);
  return { xy, rings: Uint32Array.from(rings), first };
};

/**
 * Findings as they are drawn, a place for each: its row (its place among all of the image), label, plane, whether it is
 * filled, box, outline, whether it is visible, and the code of a reviewer's outcome. Those too small for an outline are
 * dots: points and labels.
 */
limner.Layer = class {
  constructor(count, arrays) {
    const none = { area: [], bounds: [], dots: [], dot_label: [], label: [], number: [], plane: [] };
    Object.assign(this, none, arrays);
    this.count = count;
    this.visible = new Uint8Array(count).fill(1);
    this.outcome = arrays.outcome || new Uint8Array(count);
    this.row = arrays.row || Uint32Array.from({ length: count }, (_, at) => at);
    this.shapes = count ? limner.readOutlines(arrays.outlines, arrays.anchors, count) : { xy: [], rings: [0], first: [0] };
    const size = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const b = 4 * i;
      size[i] = (this.bounds[b + 2] - this.bounds[b]) * (this.bounds[b + 3] - this.bounds[b + 1]);
    }
    this.size = size;
    this.bySize = Uint32Array.from(size.keys()).sort((a, b) => size[b] - size[a] || a - b);
  }

  /** The place of a row; -1 where it is not drawn. */
  find(row) {
    this.places ||= new Map([...this.row].map((one, at) => [one, at]));
    return this.places.get(row) ?? -1;
  }

  /** Whether a level-0 point lies inside a finding, by the even-odd rule. */
  contains(at, x, y) {
    const b = 4 * at;
    if (x < this.bounds[b] || y < this.bounds[b + 1] || x > this.bounds[b + 2] || y > this.bounds[b + 3]) return false;
    const { xy, rings, first } = this.shapes;
    let inside = false;
    for (let ring = first[at]; ring < first[at + 1]; ring++) {
      for (let i = rings[ring], j = rings[ring + 1] - 2; i < rings[ring + 1]; j = i, i += 2) {
        if (xy[i + 1] > y !== xy[j + 1] > y && x < ((xy[j] - xy[i]) * (y - xy[i + 1])) / (xy[j + 1] - xy[i + 1]) + xy[i]) {
          inside = !inside;
        }
      }
    }
    return inside;
  }
};

/** The text of a cell, "" where its value is not known. */
limner.cellText = ({ type, decimals }, value) => {
  if (value === null) return "";
  if (type === "text") return value;
  return limner.grouped(decimals === null ? limner.plain(value, 5) : value.toFixed(decimals));
};

/** A number with so many significant digits, without an exponent. */
limner.plain = (value, digits) => {
  if (value === 0) return "0";
  const decimals = digits - 1 - Math.floor(Math.log10(Math.abs(value)));
  return decimals > 0 ? value.toFixed(Math.min(decimals, 20)).replace(/\.?0+$/, "") : value.toFixed(0);
};

/** Digits before the point in groups of three. */
limner.grouped = (text) => {
  const [whole, part] = text.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return part === undefined ? grouped : grouped + "." + part;
};

/** A length in km, m, mm or µm with three digits; of a map never below mm. */
limner.length = (metres, kind) => {
  const units = kind === "map" ? [["km", 1e3], ["m", 1], ["mm", 1e-3]] : [["mm", 1e-3], ["µm", 1e-6]];
  const [unit, size] = units.find(([, size]) => metres >= size * 0.999) || units[units.length - 1];
  return limner.grouped(limner.plain(metres / size, 3)) + " " + unit;
};
