// A GPU that computes nothing, for a torch that was built without CUDA: one device, one stream, events that are ready.
// With it, autograd runs its backward pass over fake tensors on `cuda`, of which only shapes exist.

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;

constexpr DeviceType kType = DeviceType::CUDA;

struct NothingGuard final : c10::impl::NoOpDeviceGuardImpl<kType> {
  Device exchangeDevice(Device) const override { return Device(kType, 0); }
  Device getDevice() const override { return Device(kType, 0); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, Device(kType, 0)); }
  Stream exchangeStream(Stream) const noexcept override { return Stream(Stream::DEFAULT, Device(kType, 0)); }
  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

C10_REGISTER_GUARD_IMPL(CUDA, NothingGuard);

struct NothingHooks final : at::CUDAHooksInterface {
  explicit NothingHooks(at::CUDAHooksArgs) {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};

}  // namespace

namespace at {
using CUDAHooks = NothingHooks;  // torch looks for this name
REGISTER_CUDA_HOOKS(CUDAHooks);
}  // namespace at
