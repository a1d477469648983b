"""Running a graph on this machine: image by image, and no hang when a worker dies."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from nipype.pipeline.plugins.multiproc import MultiProcPlugin


class ImageByImage(MultiProcPlugin):
    """Nipype's MultiProc that finishes one image before it begins the next where it can.

    The order Nipype gives runs the first step of all images first, so that nothing would be finished
    until nearly everything is.
    """

    def _sort_jobs(self, jobids, scheduler="tsort"):
        # BIDS names sort images; a fullname is WORKFLOW.IMAGE.STEP.NODE
        return sorted(jobids, key=lambda job: (self.procs[job].fullname.split(".")[1], job))

    def _submit_job(self, node, updatehash=False):
        try:
            return super()._submit_job(node, updatehash)
        except BrokenProcessPool:
            # a worker was killed, most likely for its memory, which breaks the pool for good
            self._renew_pool()
            return super()._submit_job(node, updatehash)

    def _async_callback(self, args):
        if (error := args.exception()) is None:
            super()._async_callback(args)
            return
        lost = [task for task, future in self._task_obj.items() if future is args]
        for task in lost:
            self._taskresult[task] = {
                "result": None,
                "traceback": [f"The worker process was killed, probably for want of memory: {error}\n"],
                "taskid": task,
            }

    def _renew_pool(self) -> None:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        from nipype.pipeline.plugins.multiproc import process_initializer

        self.pool = ProcessPoolExecutor(
            max_workers=self.processors,
            initializer=process_initializer,
            initargs=(self._cwd,),
            mp_context=get_context(self.plugin_args.get("mp_context")),
        )
