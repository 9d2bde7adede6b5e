import type { DatasetView } from '#contracts/api-dataset.ts'
import { Problem } from '#contracts/codes.ts'
import { foreignSchemaFault } from '#contracts/json-schema.ts'
import { unknownPlaceholders, WHOLE_ROW } from '#domain/row-template.ts'

/** Columns that one answer names. */
const MAX_NAMED = 50

/** Refuses what every row of the dataset would fail at: a column that it does not have, a schema that is none. */
export function checkRowAsk(dataset: DatasetView, input: object): void {
  const errors = [...columnFaults(dataset, input), ...schemaFaults(input)]
  if (errors.length === 0) return
  const columns = [...dataset.columns.slice(0, MAX_NAMED), WHOLE_ROW].map((name) => `{{${name}}}`)
  throw new Problem('invalid_request', errors.map(({ path, message }) => `${path}: ${message}`).join('; '), {
    remedy: `Of dataset ${dataset.name} there are ${columns.join(', ')}.`,
    extra: { errors },
  })
}

interface Fault {
  readonly path: string
  readonly message: string
}

function columnFaults({ columns }: DatasetView, input: object): readonly Fault[] {
  return ['prompt', 'system'].flatMap((name) => {
    const text: unknown = Reflect.get(input, name)
    const unknown = typeof text === 'string' ? unknownPlaceholders([text], columns) : []
    return unknown.slice(0, MAX_NAMED).map((column) => {
      return { path: `input.${name}`, message: `{{${column.slice(0, 60)}}} is no column of the dataset` }
    })
  })
}

function schemaFaults(input: object): readonly Fault[] {
  if (!('schema' in input)) return []
  const fault = foreignSchemaFault(input.schema)
  return fault === undefined ? [] : [{ path: 'input.schema', message: fault.slice(0, 300) }]
}
