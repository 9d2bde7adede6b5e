import { Problem } from '#contracts/codes.ts'
import type { FastifyInstance } from 'fastify'
import { serializerCompiler } from 'fastify-type-provider-zod'
import type { z } from 'zod'

export interface Fault {
  readonly path: string
  readonly message: string
}

const AMOUNT_REMEDY =
  'Write money as {"amount": "0.50", "currency": "USD"}: a decimal string in the major unit, more than zero, with at most nine decimals.'

const PLACES: Readonly<Record<string, string>> = Object.freeze({
  querystring: 'query',
  headers: 'header',
  params: 'path',
})

/** Checks requests by their zod schemas, and answers with everything that is wrong. */
export function validateRequests(app: FastifyInstance): void {
  app.setValidatorCompiler<z.ZodType>(({ schema, httpPart }) => (data) => {
    const checked = schema.safeParse(data)
    if (checked.success) return { value: checked.data }
    return { error: problemOf(checked.error.issues, PLACES[httpPart ?? '']) }
  })
  app.setSerializerCompiler(serializerCompiler)
}

/** The problem for what is wrong with a request beyond its schema, each fault where `problemOf` would find it. */
export function faulty(errors: readonly Fault[], remedy?: string): Problem {
  const detail = errors.map(({ path, message }) => `${path}: ${message}`).join('; ')
  return new Problem('invalid_request', detail, { ...(remedy !== undefined && { remedy }), extra: { errors } })
}

/** Most faults that one answer names. */
const MAX_FAULTS = 50

/** The problem for what a schema found, with a path for each fault. */
export function problemOf(issues: readonly z.core.$ZodIssue[], prefix?: string): Problem {
  const errors = issues.flatMap((issue) => faultsOf(issue, prefix)).slice(0, MAX_FAULTS)
  const onlyAmounts = issues.every((issue) => issue.path.at(-1) === 'amount')
  const detail = errors.map(({ path, message }) => (path === '' ? message : `${path}: ${message}`)).join('; ')
  return new Problem(onlyAmounts ? 'invalid_amount' : 'invalid_request', detail, {
    ...(onlyAmounts && { remedy: AMOUNT_REMEDY }),
    extra: { errors },
  })
}

function faultsOf(issue: z.core.$ZodIssue, prefix: string | undefined): readonly Fault[] {
  const path = prefix === undefined ? issue.path : [prefix, ...issue.path]
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path: [...path, key].join('.'), message: 'is not known here' }))
  }
  return [{ path: path.join('.'), message: issue.message }]
}
