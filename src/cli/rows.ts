import { extname } from 'node:path'
import { readArguments, runIdIn, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { printDownload, saveDownload } from './download.ts'
import type { Outputs } from './screen.ts'

const USAGE = `Usage: purser rows RUN_ID [--out FILE] [--format csv|jsonl|json] [--path PATH]

Writes the rows of a run over rows as they stand, also while it goes on: each as it was, its answer or its error, and what it
cost. Nothing is asked again.

  --out FILE     where to write, as its ending says (*.csv, *.jsonl, *.json); without it, to standard output
  --format WORD  of standard output (default: csv)
  --path PATH    of the map, in a run that has several (default: its first one)`

/** How rows are written to a file, by its ending. */
const ROW_FORMATS = Object.freeze({ '.csv': 'csv', '.jsonl': 'jsonl', '.ndjson': 'jsonl', '.json': 'json' } as const)

export type RowFormat = (typeof ROW_FORMATS)[keyof typeof ROW_FORMATS]

export async function rows(args: readonly string[], { out, err }: Outputs): Promise<number> {
  const text = { type: 'string' } as const
  const { values, positionals } = readArguments(args, {
    options: { out: { ...text, short: 'o' }, format: text, path: text, help: { type: 'boolean', short: 'h' } },
    usage: USAGE,
    positionals: 1,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  const runId = runIdIn(positionals, USAGE)
  const format = values.out === undefined ? formatNamed(values.format ?? 'csv') : rowFormatOf(values.out, USAGE)
  if (values.out !== undefined && values.format !== undefined && values.format !== format) {
    throw new UsageError(`${values.out} is not for ${values.format}.`, USAGE)
  }
  const query = new URLSearchParams({ format, ...(values.path !== undefined && { path: values.path }) }).toString()
  const path = `/runs/${encodeURIComponent(runId)}/rows?${query}`
  const api = await connectToApi(process.env)
  if (values.out === undefined) await printDownload(api, path)
  else {
    await saveDownload(api, path, values.out)
    err.line(`Written to ${values.out}.`)
  }
  return 0
}

/** @throws UsageError when the ending of the file says nothing */
export function rowFormatOf(file: string, usage: string): RowFormat {
  const ending = extname(file).toLowerCase()
  const found = Object.entries(ROW_FORMATS).find(([known]) => known === ending)
  if (!found) throw new UsageError(`${file} is none of *.csv, *.jsonl and *.json.`, usage)
  return found[1]
}

function formatNamed(word: string): RowFormat {
  const format = Object.values(ROW_FORMATS).find((known) => known === word)
  if (!format) throw new UsageError(`--format is one of csv, jsonl and json, and not ${word}.`, USAGE)
  return format
}
