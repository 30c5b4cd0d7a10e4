// A deterministic text for the tests: the log of a lighthouse, one paragraph per day, with a few facts to find.

const kWeather = ['a light wind from the west', 'fog until noon', 'rain that came in sideways', 'a clear sky and a hard frost', 'a gale from the north', 'low cloud and a long swell'];
const kShips = ['the collier Marigold', 'two herring drifters', 'the mail packet', 'a barque under tow', 'the revenue cutter', 'no ship at all'];
const kWork = ['We cleaned the lenses and trimmed the wicks', 'We painted the gallery rail', 'The clockwork was oiled and wound', 'We carried oil up the stairs, forty cans of it', 'The fog bell was struck every two minutes'];
const kMonths = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];

const kFacts = new Map([
  [0.11, 'Captain Elias Thorne of the Marigold came ashore and left a sealed letter for the keeper of the lamp.'],
  [0.37, 'The sealed letter was opened today: captain Thorne asks that the lamp burn green on the night of the equinox.'],
  [0.62, 'Captain Thorne stood again on the deck of the cutter, with his left arm in a sling.'],
  [0.84, 'On the night of the equinox the lamp burned green, as the letter of captain Thorne had asked, and a boat came in without lights.'],
]);

/** About `bytes` bytes of text; always the same for the same size. */
export function sampleText(bytes) {
  const days = Math.max(8, Math.round(bytes / 234));
  const facts = new Map([...kFacts].map(([share, text]) => [Math.floor(share * days), text]));
  const parts = ['THE LOG OF THE SKERRY LIGHT\n'];
  for (let day = 0; day < days; day++) {
    const pick = (list, step) => list[(day * step + ((day * day) >> 3)) % list.length];
    if (day % 30 === 0) parts.push(`\nCHAPTER ${1 + day / 30}\n`);
    parts.push(`\n${1 + (day % 28)} ${kMonths[Math.floor(day / 28) % 12]}. There was ${pick(kWeather, 5)}, and the glass stood at ${28 + (day % 3)}.${day % 10} inches. ` +
      `From the gallery we saw ${pick(kShips, 7)}. ${pick(kWork, 3)}, and the watch changed at midnight. ${facts.get(day) ?? `The oil in the store is ${900 - (day % 400)} gallons.`}\n`);
  }
  return parts.join('');
}
