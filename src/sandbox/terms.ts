/** Words that carry no subject of their own: grammar, and what people wrap around a question. */
const STOP_WORDS = new Set(
  `a about above after again against all also am an and any are as at be because been before being below between both but by can
  cannot could did do does doing done down during each else etc every explain few for from further get gets getting give
  given gives got had happen happened happening happens has have having he her here hers him his how however i if in into
  is it its itself just know let like list many may me mean means might more most much must my need needs no nor not now
  of off on once one only or other our out over own people per please possible same say says shall she should show shows
  so some such tell than that the their them then there these they thing things this those through to too under until up
  upon us use used user users uses using very via want wants was way ways we well were what whatever when whenever where
  whether which while who whole whom whose why will with within without work working works would yes yet you your yours
  describe exist exists several different various available kind kinds sort sorts describe according based exactly actually question answer passage passages following find anything something`.split(
    /\s+/u,
  ),
)

/** Longest first. The number is the length that must remain, so that short words keep their shape. */
const SUFFIXES: readonly (readonly [suffix: string, remaining: number])[] = [
  ['ization', 3],
  ['isation', 3],
  ['uration', 4],
  ['ations', 3],
  ['izing', 3],
  ['ising', 3],
  ['ation', 3],
  ['ating', 3],
  ['uring', 4],
  ['ator', 3],
  ['ated', 3],
  ['izer', 3],
  ['iser', 3],
  ['ized', 3],
  ['ised', 3],
  ['ured', 4],
  ['ment', 4],
  ['able', 4],
  ['ible', 4],
  ['ness', 4],
  ['ally', 4],
  ['ing', 3],
  ['ion', 4],
  ['ure', 4],
  ['ate', 3],
  ['ize', 3],
  ['ise', 3],
  ['ity', 4],
  ['ive', 4],
  ['ly', 4],
  ['ed', 3],
  ['er', 3],
  ['or', 3],
  ['al', 4],
  ['e', 3],
]

const WORD = /[\p{L}\p{N}_$]+(?:[.'’-][\p{L}\p{N}_$]+)*/gu
const SPACELESS_SCRIPT = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u
const LONGEST_WORD = 80

/** A word as written, and the stems it stands for: the whole identifier first, then its parts. */
export interface Word {
  readonly surface: string
  readonly stems: readonly string[]
}

/** Reduces an English word to a stem shared by its forms: validate, validation, validator → `valid`. */
function stemOf(word: string): string {
  let stem = word.toLowerCase().replace(/['’]s?$/u, '')
  if (!/^[a-z]+$/u.test(stem) || stem.length <= 3) return stem
  if (stem.endsWith('ies') && stem.length > 4) stem = stem.slice(0, -2)
  else if (/[^siu]s$/u.test(stem)) stem = stem.slice(0, -1)
  const found = SUFFIXES.find(
    ([suffix, remaining]) => stem.endsWith(suffix) && stem.length - suffix.length >= remaining,
  )
  if (found !== undefined) stem = stem.slice(0, -found[0].length)
  stem = stem.replace(/([bdfgmnprt])\1$/u, '$1')
  return stem.endsWith('y') && stem.length > 2 ? `${stem.slice(0, -1)}i` : stem
}

/** All words of a text in order, without stop words. Scripts that put no spaces between words give pairs of characters. */
export function contentWords(text: string): readonly Word[] {
  const words: Word[] = []
  for (const [surface] of text.matchAll(WORD)) {
    if (surface.length > LONGEST_WORD || isStopWord(surface)) continue
    if (SPACELESS_SCRIPT.test(surface)) words.push(...characterPairs(surface))
    else words.push({ surface, stems: stemsOf(surface) })
  }
  return words
}

function isStopWord(surface: string): boolean {
  const lower = surface.toLowerCase()
  return STOP_WORDS.has(lower) || STOP_WORDS.has(lower.replace(/['’].*$/u, '')) || /^[a-z]$/u.test(lower)
}

/** `bodyLimit` stands for itself and for `body` and `limit`; `reply.send` for itself, `reply` and `send`. */
function stemsOf(surface: string): readonly string[] {
  const parts = surface
    .replace(/([\p{Ll}\p{N}])(\p{Lu})/gu, '$1 $2')
    .split(/[\s._$'’-]+/u)
    .filter((part) => part.length > 1)
  if (parts.length <= 1) return [stemOf(surface)]
  return [...new Set([surface.toLowerCase(), ...parts.filter((part) => !isStopWord(part)).map(stemOf)])]
}

function characterPairs(surface: string): readonly Word[] {
  const characters = Array.from(surface)
  if (characters.length === 1) return [{ surface, stems: [surface] }]
  return characters.slice(0, -1).map((character, index) => {
    const pair = character + (characters[index + 1] ?? '')
    return { surface: pair, stems: [pair] }
  })
}
