import { isRecord, numberOrNull, stringOrNull } from './json.ts'

export type Body = Readonly<Record<string, unknown>>

/** What is wrong with a request, and with which of its parameters. */
export class Unusable extends Error {
  readonly param: string | null
  constructor(message: string, param: string | null) {
    super(message)
    this.param = param
  }
}

export function readModel(body: Body): string {
  const model = stringOrNull(body['model'])
  if (model === null || model === '') throw new Unusable('you must provide a model parameter', 'model')
  return model
}

/** A whole number of at least 1, or null when the request has none. */
export function readCount(body: Body, param: string): number | null {
  if (body[param] === undefined || body[param] === null) return null
  const count = numberOrNull(body[param])
  if (count === null || !Number.isInteger(count) || count < 1) {
    throw new Unusable(`Invalid '${param}': integer below minimum value. Expected a value >= 1.`, param)
  }
  return count
}

export function readList(body: Body, param: string): readonly unknown[] {
  const value = body[param] ?? []
  if (!Array.isArray(value)) throw new Unusable(`Invalid type for '${param}': expected an array.`, param)
  return value
}

/** One text or a list of texts. */
export function readTexts(value: unknown, param: string): readonly string[] {
  const texts = value === undefined || value === null ? [] : Array.isArray(value) ? value : [value]
  return texts.map((text: unknown) => {
    if (typeof text !== 'string' || text === '') throw new Unusable(`Invalid '${param}': expected texts.`, param)
    return text
  })
}

export function readRecord(value: unknown, param: string): Body {
  if (!isRecord(value)) throw new Unusable(`Invalid type for '${param}': expected an object.`, param)
  return value
}
