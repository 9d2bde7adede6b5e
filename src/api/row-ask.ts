import type { DatasetView } from '#contracts/api-dataset.ts'
import { foreignSchemaFault } from '#contracts/json-schema.ts'
import type { Scope } from '#db/database.ts'
import { getDataset } from '#db/dataset.ts'
import type { Database } from '#db/schema.ts'
import { unknownPlaceholders, WHOLE_ROW } from '#domain/row-template.ts'
import type { Kysely } from 'kysely'
import { isId, notFound } from './access.ts'
import { faulty } from './validation.ts'

/** Columns that one answer names. */
const MAX_NAMED = 50

/**
 * Refuses what every row of the dataset would fail at: a column that it does not have, a schema that is none. By convention
 * an agent that asks about rows takes the id of a dataset as `datasetId`, and its columns stand in `prompt` and `system`.
 */
export async function checkRowAsk(db: Kysely<Database>, scope: Scope, input: unknown): Promise<void> {
  const dataset = await namedDataset(db, scope, input)
  if (!dataset || typeof input !== 'object' || input === null) return
  const errors = [...columnFaults(dataset, input), ...schemaFaults(input)]
  if (errors.length === 0) return
  const columns = [...dataset.columns.slice(0, MAX_NAMED), WHOLE_ROW].map((name) => `{{${name}}}`)
  throw faulty(errors, `Of dataset ${dataset.name} there are ${columns.join(', ')}.`)
}

/** The dataset that the input of a run names; undefined when it names none. @throws Problem `not_found` */
export async function namedDataset(
  db: Kysely<Database>,
  scope: Scope,
  input: unknown,
): Promise<DatasetView | undefined> {
  if (typeof input !== 'object' || input === null || !('datasetId' in input)) return undefined
  const { datasetId } = input
  if (typeof datasetId !== 'string') return undefined
  const dataset = isId(datasetId) ? await getDataset(db, scope, datasetId) : undefined
  if (!dataset) throw notFound('dataset', datasetId)
  return dataset
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
  const fault = foreignSchemaFault(input.schema) ?? answerFault(input.schema)
  return fault === undefined ? [] : [{ path: 'input.schema', message: fault.slice(0, 300) }]
}

/** An answer is an object whatever is asked for: of another type each row would be paid for and fail. */
function answerFault(schema: unknown): string | undefined {
  const type: unknown = typeof schema === 'object' && schema !== null ? Reflect.get(schema, 'type') : undefined
  const types: readonly unknown[] = Array.isArray(type) ? type : [type]
  return type === undefined || types.includes('object') ? undefined : 'asks for no object: its type is to be "object"'
}
