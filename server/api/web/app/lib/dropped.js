// The files of a drop, also those in folders. A folder may hold anything, so depth and number have limits.

const DEPTH = 20, MOST = 2000, LOOKED_AT = 50_000;

// Begin in the event itself: a browser gives out the entries only there. takes: whether a name is of a file that is
// read. progress: called with the number found so far. Returns { files, skipped }, where there are folders a promise of it:
// files as { file, path }, and how many were skipped by reason: "format", "hidden", "many", "deep", "unread".
export function dropped(transfer, takes, progress) {
  const entries = [...transfer.items].filter((each) => each.kind === "file").map((each) => each.webkitGetAsEntry?.());
  // What has no entry, as a picture dragged from a page, is a file all the same.
  if (!entries.some((each) => each?.isDirectory)) return { files: [...transfer.files].map((file) => ({ file, path: file.name })), skipped: {} };
  return walked(entries.filter(Boolean), takes, progress);
}

async function walked(top, takes, progress) {
  const files = [], skipped = {};
  const skip = (why) => { skipped[why] = (skipped[why] || 0) + 1; };
  // A list and no recursion: how deep the folders go is not ours to say.
  const pending = top.map((entry) => [entry, 0]).reverse();
  for (let looked = 0; pending.length; looked += 1) {
    const [entry, depth] = pending.pop();
    if (files.length >= MOST || looked >= LOOKED_AT) { skip("many"); continue; }
    const inside = depth > 0;
    if (inside && /^(\.|~\$)/.test(entry.name)) skip("hidden");
    else if (entry.isDirectory) {
      if (depth >= DEPTH) skip("deep");
      else await children(entry, LOOKED_AT - looked).then((found) => pending.push(...found.reverse().map((each) => [each, depth + 1])), () => skip("unread"));
    } else if (inside && !takes(entry.name)) skip("format");
    else {
      await new Promise((resolve, reject) => entry.file(resolve, reject)).then((file) => files.push({ file, path: entry.fullPath.replace(/^\//, "") }), () => skip("unread"));
      if (files.length % 50 === 0) progress(files.length);
    }
  }
  return { files, skipped };
}

// A browser gives at most 100 at a time, until it gives none.
async function children(folder, most) {
  const reader = folder.createReader(), found = [];
  for (let some; found.length < most && (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length;) found.push(...some);
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}
