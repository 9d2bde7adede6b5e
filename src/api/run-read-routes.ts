import { reportQuerySchema } from '#contracts/api-balance.ts'
import { onwardQuerySchema } from '#contracts/api-page.ts'
import { ledgerSchema, runListQuerySchema, runListSchema, runSchema } from '#contracts/api-run.ts'
import { Problem } from '#contracts/codes.ts'
import { callReportSchema, callStorySchema, reportSchema } from '#contracts/report.ts'
import { readCallStory } from '#db/call-story.ts'
import type { ReportView } from '#db/report-view.ts'
import { readReportAt, readRunCalls, type NoReport } from '#db/report.ts'
import { readLedger } from '#db/run-ledger.ts'
import { getRun, listRuns } from '#db/run-read.ts'
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { callerOfRequest, notFound, tenantFor, tenantDb } from './access.ts'
import type { Api } from './api-deps.ts'
import { badInstant } from './instant.ts'
import { isCount, pageAsked, pageFound, pageOf } from './page.ts'
import { faulty } from './validation.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Runs']

export function runReadRoutes(app: Api): void {
  app.get(
    '/runs',
    {
      config: { access: 'any', problems: ['not_found'] },
      schema: {
        tags,
        summary: 'Runs, newest first',
        querystring: runListQuerySchema,
        response: { 200: runListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { limit: _limit, cursor: _cursor, order: _order, projectId, ...filter } = request.query
      const scope = await tenantFor(db, request, { noun: 'project', id: projectToList(request, projectId) })
      const found = await listRuns(db, scope, { filter, page: pageAsked(request) })
      const { items, nextCursor } = pageOf(request, found)
      return { runs: items, nextCursor }
    },
  )

  app.get(
    '/runs/:id',
    {
      config: { access: 'any', readsRun: true },
      schema: { tags, summary: 'A run: state, envelope, output', params: idParams, response: { 200: runSchema } },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      return getRun(db, await tenantFor(db, request, { noun: 'run', id }), id)
    },
  )

  app.get(
    '/runs/:id/ledger',
    {
      config: { access: 'any', readsRun: true },
      schema: {
        tags,
        summary: 'Every movement of money of a run, in order',
        params: idParams,
        querystring: onwardQuerySchema,
        response: { 200: ledgerSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const scope = await tenantFor(db, request, { noun: 'run', id })
      const found = await readLedger(db, scope, { runId: id, page: pageAsked(request, isCount) })
      const { items, nextCursor } = pageFound(request, found, ({ seq }) => seq)
      return { transfers: items.map(({ transfer }) => transfer), nextCursor }
    },
  )
}

/** What a run cost and why, from the journal. */
export function reportRoutes(app: Api): void {
  app.get(
    '/runs/:id/report',
    {
      config: { access: 'any', readsRun: true, problems: ['invalid_instant'] },
      schema: {
        tags,
        summary: 'What a run cost',
        description:
          'Now, as of an instant, or as an earlier revision. Looking back, money, attempts and states are those of ' +
          'then; usage that only a later correction told is left out.',
        params: idParams,
        querystring: reportQuerySchema,
        response: { 200: reportSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const scope = await tenantFor(db, request, { noun: 'run', id })
      const report = await readReportAt(db, scope, { runId: id, view: viewOf(request.query) })
      if (typeof report === 'string') throw noReport(report, { ...request.query, id })
      return report
    },
  )

  app.get(
    '/runs/:id/calls',
    {
      config: { access: 'any', readsRun: true },
      schema: {
        tags,
        summary: 'The calls of a run with their attempts',
        params: idParams,
        response: { 200: z.object({ calls: z.array(callReportSchema) }) },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const calls = await readRunCalls(db, await tenantFor(db, request, { noun: 'run', id }), id)
      if (!calls) throw notFound('run', id)
      return { calls: [...calls] }
    },
  )

  app.get(
    '/calls/:id',
    {
      config: { access: 'any' },
      schema: {
        tags: ['Calls'],
        summary: "One call's story",
        description:
          'Who asked, which model was asked for, what served it, what was retried and what fell back and why, which ' +
          'balance paid, which envelope allowed or stopped it, and the ledger entries that prove it.',
        params: idParams,
        response: { 200: callStorySchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const story = await readCallStory(db, await tenantFor(db, request, { noun: 'call', id }), id)
      if (!story) throw notFound('call', id)
      return story
    },
  )
}

function viewOf({ asOf, revision }: z.infer<typeof reportQuerySchema>): ReportView {
  if (revision !== undefined) return { revision }
  return asOf === undefined ? 'now' : { asOf }
}

function noReport(reason: NoReport, asked: z.infer<typeof reportQuerySchema> & { readonly id: string }): Problem {
  switch (reason) {
    case 'unknown_run':
      return notFound('run', asked.id)
    case 'unknown_revision':
      return new Problem('not_found', `The report has no revision ${asked.revision} yet.`, {
        remedy: 'The newest one is in the report without a revision.',
      })
    case 'in_future':
      return badInstant('query.asOf', `${asked.asOf} has not come yet`)
    case 'before_run':
      return badInstant('query.asOf', `${asked.asOf} lies before the start of the run`)
  }
}

/** The project that a listing is of: the caller's own, or the one that an operator names. */
export function projectToList(request: FastifyRequest, asked: string | undefined): string {
  const projectId = asked ?? callerOfRequest(request).projectId
  if (projectId !== null) return projectId
  throw faulty(
    [{ path: 'query.projectId', message: 'is missing' }],
    'An operator key sees many projects: say which one to list.',
  )
}
