import type { RowResultView } from '#contracts/api-row.ts'
import type { RowMap } from '#db/row-map.ts'
import type { RowResult } from '#db/row-result.ts'
import { csvLine, csvText } from '#domain/csv.ts'
import { parseObject } from '#domain/json-answer.ts'
import { formatNano, toAmount } from '#domain/money.ts'

type Pages = AsyncIterable<readonly RowResult[]>

/** One JSON document, written piece by piece. Its last word is `"end":true`. */
export async function* rowsJson(map: RowMap, pages: Pages): AsyncGenerator<string> {
  yield `${JSON.stringify({ runId: map.runId, path: map.path }).slice(0, -1)},"rows":[`
  let comma = ''
  for await (const page of pages) {
    yield comma + page.map((row) => JSON.stringify(viewOf(map, row))).join(',')
    comma = ','
  }
  yield '],"end":true}\n'
}

/** An object a line. */
export async function* rowsJsonLines(map: RowMap, pages: Pages): AsyncGenerator<string> {
  for await (const page of pages) yield page.map((row) => `${JSON.stringify(viewOf(map, row))}\n`).join('')
}

/**
 * The columns of the dataset, and behind them what became of each row. Texts are somebody else's: none of them runs in a
 * spreadsheet.
 */
export async function* rowsCsv(map: RowMap, pages: Pages): AsyncGenerator<string> {
  const fields = fieldsOf(map)
  const own = ['state', ...(fields ?? ['answer']), 'error', 'error_detail', 'cost', 'currency']
  yield csvLine(unique(['row', ...map.columns, ...own]).map(csvText))
  for await (const page of pages) yield page.map((row) => lineOf(map, row, fields)).join('')
}

function lineOf(map: RowMap, row: RowResult, fields: readonly string[] | undefined): string {
  const { answer, error, state } = viewOf(map, row)
  const cells = fields
    ? fields.map((field) => (isRecord(answer) && Object.hasOwn(answer, field) ? cellOf(answer[field]) : null))
    : [answer === null ? null : cellOf(answer)]
  return csvLine([
    String(row.number),
    ...map.columns.map((column) => csvText(Object.hasOwn(row.input, column) ? cellOf(row.input[column]) : null)),
    state,
    ...cells.map(csvText),
    csvText(error?.reason ?? null),
    csvText(error?.detail ?? null),
    // Decimals and codes are our own. Of two currencies both stand there, in one order.
    row.cost.map(({ amount }) => formatNano(amount)).join(';'),
    row.cost.map(({ currency }) => currency).join(';'),
  ])
}

function viewOf(map: RowMap, row: RowResult): RowResultView {
  const { number, input, state, text, cost } = row
  return {
    row: number,
    input: { ...input },
    state,
    answer: state === 'answered' && text !== null ? answerOf(map, text) : null,
    error: errorOf(row),
    cost: cost.map(({ currency, amount }) => toAmount(amount, currency)),
  }
}

function errorOf({ state, reason, detail, isErased }: RowResult): RowResultView['error'] {
  if (reason !== null) return { reason, detail }
  if (state !== 'answered' || !isErased) return null
  return { reason: 'answer_not_stored', detail: 'The row was answered, and its answer is not stored any more.' }
}

function answerOf({ ask }: RowMap, text: string): unknown {
  if (!ask.schema) return text
  const parsed = parseObject(text)
  return parsed.ok ? parsed.value : text
}

/** The properties of the schema; undefined when it names none: the answer is one cell then. */
function fieldsOf({ ask }: RowMap): readonly string[] | undefined {
  const properties = ask.schema?.schema['properties']
  const names = isRecord(properties) ? Object.keys(properties) : []
  return names.length > 0 ? names : undefined
}

/** A name that is there already gets a mark: a header of two equal names is read wrongly. */
function unique(names: readonly string[]): readonly string[] {
  const taken = new Set<string>()
  return names.map((name) => {
    let free = name
    while (taken.has(free)) free += '_'
    taken.add(free)
    return free
  })
}

function cellOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
