import type { JsonSchemaFormat } from './request.ts'
import type { Question } from './question.ts'
import type { Support, SupportingSentence } from './support.ts'
import { isRecord, numberOrNull, stringOrNull } from './json.ts'
import { toFollowUpQueries, toQueries } from './queries.ts'
import { contentWords } from './terms.ts'

/** All that an answer may be filled from. */
export interface FillSource {
  readonly question: Question
  readonly support: Support
  /** The free-text answer, with its citation marks. */
  readonly answer: string
}

type Schema = Readonly<Record<string, unknown>>

/** Where in the schema a value is wanted, and what the entry around it is about. */
interface Place {
  readonly schema: Schema
  readonly name: string
  /** The name and description in lower case: the only hints there are. */
  readonly hint: string
  readonly sentence: SupportingSentence | null
  readonly query: string | null
}

interface Fill extends FillSource {
  readonly root: Schema
}

/** Schemas nest and refer to themselves; a person reads no deeper. */
const MAX_DEPTH = 12
const MAX_REFERENCES = 8
const USUAL_QUERIES = 4

const QUERY = /quer(?:y|ies)|search|keyword|question|topic|\bterms?\b/u
const FOLLOW_UP = /follow|missing|further|additional|\bgaps?\b|unanswered|open question/u
const IDENTIFIER = /passage|\bids?\b|cit(?:e|ation|ed)|source|reference|evidence/u
const QUOTE = /quot|sentence|\bfacts?\b|verbatim|excerpt|snippet|extract|\bnotes?\b/u
const TEXT =
  /answer|summary|text|content|report|body|conclusion|paragraph|claim|statement|finding|point|bullet|message|explanation|response|result|description|section/u
const TITLE = /title|heading|headline/u
const FOUND = /found|support|answer|suffic|relevan|enough|success|complete|covered|confiden|known/u
const NOT_FOUND =
  /not_?found|missing|unanswer|insufficient|unsupported|irrelevant|incomplete|unknown|no_?answer|gap|more/u
const SCORE = /score|confidence|relevance|coverage|certainty/u
const COUNT = /count|number of|how many|total/u

/** Fills a JSON schema by extraction: what the messages support where a name or description asks for it, else neutral values. */
export function fillSchema(format: JsonSchemaFormat, source: FillSource): unknown {
  const fill: Fill = { ...source, root: format.schema }
  return valueFor(fill, placeOf(format.schema, format.name, format.description), 0)
}

function valueFor(fill: Fill, place: Place, depth: number): unknown {
  const schema = resolve(fill.root, place.schema)
  if (schema !== place.schema)
    return valueFor(fill, { ...place, schema, hint: `${place.hint} ${hintOf(schema)}` }, depth)
  if ('const' in schema) return schema['const']
  if (Array.isArray(schema['enum'])) return chooseOption(fill, place, schema['enum'])
  const type = typeOf(schema)
  if (depth > MAX_DEPTH) return type === 'array' ? [] : type === 'object' ? {} : null
  if (type === 'object') return objectFor(fill, place, depth)
  if (type === 'array') return arrayFor(fill, place, depth)
  if (type === 'string') return fitLength(schema, stringFor(fill, place), fill)
  if (type === 'boolean') return booleanFor(fill, place)
  if (type === 'number' || type === 'integer') return numberFor(fill, place, type)
  return null
}

function objectFor(fill: Fill, place: Place, depth: number): unknown {
  const properties = isRecord(place.schema['properties']) ? place.schema['properties'] : {}
  const names = Object.keys(properties)
  const hasPlainId = names.some((name) => /^id$|passage/iu.test(name))
  return Object.fromEntries(
    names.flatMap((name) => {
      const schema = properties[name]
      if (!isRecord(schema)) return []
      const inner = placeOf(schema, name, '')
      // Beside an id, `source` asks for where the passage comes from; alone, for the passage itself.
      const hint = hasPlainId && /^source$/iu.test(name) ? `${inner.hint} origin` : inner.hint
      return [[name, valueFor(fill, { ...inner, hint, sentence: place.sentence, query: place.query }, depth + 1)]]
    }),
  )
}

function arrayFor(fill: Fill, place: Place, depth: number): readonly unknown[] {
  const minItems = numberOrNull(place.schema['minItems']) ?? 0
  const maxItems = numberOrNull(place.schema['maxItems']) ?? Number.MAX_SAFE_INTEGER
  const items = isRecord(place.schema['items']) ? resolve(fill.root, place.schema['items']) : null
  if (items === null) return []
  const itemHint = typeOf(items) === 'object' ? place.hint : `${place.hint} ${hintOf(items)}`
  const item: Place = { ...place, schema: items, hint: itemHint }
  const entries = entriesFor(fill, item, maxItems)
  const values = entries.map((entry) => valueFor(fill, entry, depth + 1))
  const kept = (typeOf(items) === 'object' ? values : [...new Set(values)]).slice(0, maxItems)
  while (kept.length < minItems) kept.push(valueFor(fill, { ...item, query: null, sentence: null }, depth + 1))
  return kept
}

/** One place per entry of an array: each about a sentence found, or about a query. */
function entriesFor(fill: Fill, item: Place, maxItems: number): readonly Place[] {
  const { sentences } = fill.support
  const type = typeOf(item.schema)
  if (item.sentence !== null) return type === 'string' && IDENTIFIER.test(item.hint) ? [item] : []
  if (type === 'object') {
    const hints = Object.entries(isRecord(item.schema['properties']) ? item.schema['properties'] : {})
      .map(([name, schema]) => `${wordsOf(name)} ${isRecord(schema) ? hintOf(schema) : ''}`)
      .join(' ')
    const isAboutSentences = IDENTIFIER.test(hints) || QUOTE.test(hints)
    if (!isAboutSentences && QUERY.test(`${wordsOf(item.name)} ${hints}`)) return queryPlaces(fill, item, maxItems)
    return isAboutSentences || TEXT.test(hints) ? sentences.map((sentence) => ({ ...item, sentence })) : []
  }
  if (type !== 'string') return []
  if (IDENTIFIER.test(wordsOf(item.name)) || QUOTE.test(wordsOf(item.name)))
    return sentences.map((sentence) => ({ ...item, sentence }))
  if (QUERY.test(item.hint)) return queryPlaces(fill, item, maxItems)
  const isAboutSentences = IDENTIFIER.test(item.hint) || QUOTE.test(item.hint) || TEXT.test(item.hint)
  return isAboutSentences ? sentences.map((sentence) => ({ ...item, sentence })) : []
}

function queryPlaces(fill: Fill, item: Place, maxItems: number): readonly Place[] {
  const isFollowUp = FOLLOW_UP.test(item.hint)
  const queries = isFollowUp ? toFollowUpQueries(fill.question, fill.support.missingStems) : toQueries(fill.question)
  return queries.slice(0, Math.min(maxItems, USUAL_QUERIES)).map((query) => ({ ...item, query }))
}

function stringFor(fill: Fill, place: Place): string {
  const { sentence, query } = place
  const name = wordsOf(place.name)
  if (query !== null && !/reason|why|rationale|purpose/u.test(name)) return query
  if (sentence !== null) return stringAbout(sentence, place, name)
  if (FOLLOW_UP.test(name)) return toFollowUpQueries(fill.question, fill.support.missingStems)[0] ?? ''
  if (QUERY.test(name)) return toQueries(fill.question)[0] ?? ''
  if (TITLE.test(name)) return fill.question.text.trim()
  if (IDENTIFIER.test(name)) return fill.support.sentences[0]?.passage.id ?? ''
  if (QUOTE.test(name)) return fill.support.sentences[0]?.text ?? ''
  return TEXT.test(name) || TEXT.test(place.hint) ? fill.answer : ''
}

function stringAbout(sentence: SupportingSentence, place: Place, name: string): string {
  const { passage } = sentence
  if (place.hint.endsWith('origin') || /\b(?:file|path|url|uri|link)\b/u.test(name)) return passage.source
  if (QUOTE.test(name)) return sentence.text
  if (TITLE.test(name)) return sentence.heading || passage.title || passage.source
  if (IDENTIFIER.test(name)) return passage.id ?? ''
  if (QUOTE.test(place.hint) || !TEXT.test(place.hint))
    return TEXT.test(name) || QUOTE.test(place.hint) ? sentence.text : ''
  // A list of paragraphs or points is read as text, so each keeps its citation; beside an id field it needs none.
  return /paragraph|point|bullet|finding/u.test(name) && passage.id !== null
    ? `${sentence.text} [${passage.id}]`
    : sentence.text
}

function booleanFor(fill: Fill, place: Place): boolean {
  const name = wordsOf(place.name)
  if (NOT_FOUND.test(name.replaceAll(' ', '_'))) return !fill.support.isFound
  return FOUND.test(place.hint) && fill.support.isFound
}

function numberFor(fill: Fill, place: Place, type: 'number' | 'integer'): number {
  const { schema } = place
  const minimum =
    numberOrNull(schema['minimum']) ?? (numberOrNull(schema['exclusiveMinimum']) ?? -Number.MAX_SAFE_INTEGER - 1) + 1
  const maximum =
    numberOrNull(schema['maximum']) ?? (numberOrNull(schema['exclusiveMaximum']) ?? Number.MAX_SAFE_INTEGER) - 1
  const best = place.sentence ?? fill.support.sentences[0]
  const isScore = SCORE.test(wordsOf(place.name))
  const wanted = isScore
    ? (best?.coverage ?? 0) * (maximum <= 100 ? maximum : 1)
    : COUNT.test(place.hint)
      ? fill.support.sentences.length
      : 0
  const rounded = type === 'integer' ? Math.round(wanted) : Math.round(wanted * 1000) / 1000
  return Math.min(Math.max(rounded, minimum), maximum)
}

function chooseOption(fill: Fill, place: Place, options: readonly unknown[]): unknown {
  const asked = new Set(fill.question.words.flatMap((word) => word.stems))
  const scored = options.map((option, index) => {
    const text = wordsOf(String(option))
    if (option === place.sentence?.passage.id) return { option, score: 100, index }
    const isNegative = NOT_FOUND.test(text.replaceAll(' ', '_')) || /^(?:no|none|false|un\w+)$/u.test(text)
    const isPositive = !isNegative && (FOUND.test(text) || /^(?:yes|true|full)/u.test(text))
    const agrees = fill.support.isFound ? isPositive : isNegative
    const contradicts = fill.support.isFound ? isNegative : isPositive
    const overlap = contentWords(text).filter((word) => word.stems.some((stem) => asked.has(stem))).length
    return { option, score: overlap + (agrees ? 10 : 0) - (contradicts ? 10 : 0), index }
  })
  return scored.toSorted((left, right) => right.score - left.score || left.index - right.index)[0]?.option ?? null
}

function fitLength(schema: Schema, text: string, fill: Fill): string {
  const minLength = numberOrNull(schema['minLength']) ?? 0
  const maxLength = numberOrNull(schema['maxLength']) ?? Number.MAX_SAFE_INTEGER
  const filled = text.length >= minLength ? text : [text, fill.question.text].join(' ').trim().padEnd(minLength, '.')
  if (filled.length <= maxLength) return filled
  const cut = filled.slice(0, maxLength).replace(/\s+\S*$/u, '')
  return cut.length >= minLength ? cut : filled.slice(0, maxLength)
}

/** Follows `$ref`, and takes of `anyOf`/`oneOf`/`allOf` the first alternative that holds something. */
function resolve(root: Schema, schema: Schema): Schema {
  let current = schema
  for (let steps = 0; steps < MAX_REFERENCES; steps += 1) {
    const next = referenced(root, current) ?? alternative(current)
    if (next === null) return current
    current = { ...next, ...(hintOf(current) === '' ? {} : { description: `${hintOf(current)} ${hintOf(next)}` }) }
  }
  return current
}

function referenced(root: Schema, schema: Schema): Schema | null {
  const reference = stringOrNull(schema['$ref'])
  if (reference === null || !reference.startsWith('#')) return null
  let target: unknown = root
  for (const key of reference
    .slice(1)
    .split('/')
    .filter((part) => part !== '')) {
    target = isRecord(target) ? target[key.replaceAll('~1', '/').replaceAll('~0', '~')] : null
  }
  return isRecord(target) ? target : null
}

function alternative(schema: Schema): Schema | null {
  const choices = [schema['anyOf'], schema['oneOf'], schema['allOf']].find((value) => Array.isArray(value))
  if (choices === undefined) return null
  const usable = choices.filter((choice: unknown) => isRecord(choice))
  return usable.find((choice) => choice['type'] !== 'null') ?? usable[0] ?? null
}

function typeOf(schema: Schema): string {
  const { type } = schema
  const first: unknown = Array.isArray(type) ? type.find((each) => each !== 'null') : type
  return stringOrNull(first) ?? ('properties' in schema ? 'object' : 'items' in schema ? 'array' : 'string')
}

function placeOf(schema: Schema, name: string, description: string): Place {
  const hint = `${wordsOf(name)} ${description.toLowerCase()} ${hintOf(schema)}`.trim()
  return { schema, name, hint, sentence: null, query: null }
}

function hintOf(schema: Schema): string {
  return (stringOrNull(schema['description']) ?? '').toLowerCase()
}

/** `passageIds` and `passage_ids` as words: "passage ids". */
function wordsOf(name: string): string {
  return name
    .replaceAll(/([\p{Ll}\p{N}])(\p{Lu})/gu, '$1 $2')
    .replaceAll(/[_-]+/gu, ' ')
    .toLowerCase()
}
